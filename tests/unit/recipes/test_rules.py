"""Each rule has a recipe that breaks it and the nearest one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_recipes import WHOLE, write_recipe

from palmswift.errors import Problem
from palmswift.recipes.check import check_recipe
from palmswift.recipes.rules import IDLE, RULES, Machine
from palmswift.recipes.source import read_recipe

LINUX = Machine()

PAIRS = [
    ("bf16", "both on", "fp16: true, bf16: true", "fp16: false, bf16: true"),
    ("bf16", "both on", "torch_dtype: float32, bf16: true", "torch_dtype: bfloat16, bf16: true"),
    ("fp16", "both on", "torch_dtype: bfloat16, fp16: true", "torch_dtype: float16, fp16: true"),
    ("packing", "flash", "packing: true", "packing: true, attn_impl: flash_attn"),
    ("padding_free", "flash", "padding_free: true, attn_impl: sdpa", "padding_free: false"),
    (
        "lazy_tokenize",
        "packing",
        "lazy_tokenize: true, packing: true, attn_impl: flash_attn",
        "lazy_tokenize: false, packing: true, attn_impl: flash_attn",
    ),
    ("lazy_tokenize", "streaming", "lazy_tokenize: true, streaming: true", "lazy_tokenize: true"),
    (
        "use_liger_kernel",
        "loss_scale",
        "use_liger_kernel: true, loss_scale: default+react",
        "use_liger_kernel: true, loss_scale: last_round+ignore_empty_think",
    ),
    (
        "use_liger_kernel",
        "loss_scale",
        "use_liger_kernel: true, is_binary_loss_scale: false",
        "use_liger_kernel: true, loss_scale: hermes, is_binary_loss_scale: true",
    ),
    (
        "use_liger_kernel",
        "loss_type",
        "use_liger_kernel: true, loss_type: mine",
        "use_liger_kernel: false, loss_type: mine",
    ),
    (
        "use_liger_kernel",
        "label_smoothing",
        "use_liger_kernel: true, label_smoothing_factor: 0.1",
        "use_liger_kernel: true, label_smoothing_factor: 0",
    ),
    (
        "use_liger_kernel",
        "enable_dft_loss",
        "use_liger_kernel: true, enable_dft_loss: true",
        "use_liger_kernel: true",
    ),
    (
        "lisa_activated_layers",
        "adapter",
        "lisa_activated_layers: 2",
        "lisa_activated_layers: 2, tuner_type: full",
    ),
    ("callbacks", "adapter", "callbacks: [lisa]", "callbacks: [lisa], tuner_type: full"),
    ("use_galore", "GaLore", "use_galore: true", "use_galore: true, tuner_type: full"),
    ("optimizer", "GaLore", "optimizer: galore", "optimizer: muon"),
    (
        "callbacks",
        "FSDP",
        "callbacks: [activation_cpu_offload]",
        "callbacks: [activation_cpu_offload], launch.strategy: fsdp2",
    ),
    (
        "callbacks",
        "early_stop",
        "callbacks: early_stop",
        "callbacks: [early_stop], early_stop_interval: 3, eval_strategy: steps",
    ),
    (
        "early_stop_interval",
        "eval_strategy",
        "early_stop_interval: 3, eval_strategy: no",
        "early_stop_interval: 3, eval_strategy: steps",
    ),
    (
        "device_map",
        "CPU",
        "quant_method: bnb, quant_bits: 4, device_map: {lm_head: cpu, model: 0}",
        "quant_method: bnb, quant_bits: 4, device_map: {lm_head: 0, model: 0}",
    ),
    (
        "device_map",
        "CPU",
        "quant_method: bnb, quant_bits: 8, device_map: cpu",
        "quant_method: bnb, quant_bits: 8, device_map: auto",
    ),
    ("quant_bits", "quantises nothing", "quant_bits: 4", "quant_bits: 4, quant_method: bnb"),
    ("quant_method", "without quant_bits", "quant_method: bnb", "quant_method: fp8"),
    (
        "quant_bits",
        "4 or 8",
        "quant_bits: 3, quant_method: bnb",
        "quant_bits: 3, quant_method: hqq",
    ),
    (
        "quant_method",
        "cannot be trained",
        "quant_method: bnb, quant_bits: 4, tuner_type: full",
        "tuner_type: full",
    ),
    (
        "save_steps",
        "multiple",
        "load_best_model_at_end: true, eval_strategy: steps, save_steps: 100, eval_steps: 40",
        "load_best_model_at_end: true, eval_strategy: steps, save_steps: 100, eval_steps: 50",
    ),
    (
        "save_steps",
        "shares",
        "load_best_model_at_end: true, eval_strategy: steps, save_steps: 100, eval_steps: 0.1",
        "load_best_model_at_end: true, eval_strategy: steps, save_steps: 0.3, eval_steps: 0.1",
    ),
    (
        "load_best_model_at_end",
        "the same",
        "load_best_model_at_end: true, eval_strategy: no",
        "load_best_model_at_end: true, eval_strategy: epoch, save_strategy: epoch",
    ),
    ("warmup_steps", "both", "warmup_ratio: 0.1, warmup_steps: 10", "warmup_steps: 10"),
    (
        "warmup_ratio",
        "warms nothing",
        "warmup_ratio: 0.1, lr_scheduler_type: constant",
        "warmup_ratio: 0.1, lr_scheduler_type: constant_with_warmup",
    ),
    ("warmup_ratio", "below 1", "warmup_ratio: 1.0", "warmup_ratio: 0.99"),
    (
        "dataloader_prefetch_factor",
        "processes",
        "dataloader_prefetch_factor: 2, dataloader_num_workers: 0",
        "dataloader_prefetch_factor: 2, dataloader_num_workers: 1",
    ),
    (
        "predict_with_generate",
        "measure",
        "predict_with_generate: true, prediction_loss_only: true",
        "predict_with_generate: true, prediction_loss_only: false",
    ),
    ("eval_metric", "measure", "eval_metric: acc, prediction_loss_only: true", "eval_metric: acc"),
    (
        "model_kwargs",
        "environment",
        "model_kwargs: {enable_thinking: false}",
        "model_kwargs: {max_pixels: 4096}",
    ),
    ("lora_dtype", "float32", "lora_dtype: float16", "lora_dtype: bfloat16"),
    (
        "enable_thinking",
        "no think block",
        "template: qwen3_nothinking, enable_thinking: true",
        "template: qwen3, enable_thinking: true",
    ),
    (
        "enable_thinking",
        "thinks whatever",
        "template: qwen3_thinking, enable_thinking: false",
        "template: qwen3_thinking, enable_thinking: true",
    ),
    ("lora_alpha", "no effect", "tuner_type: full, lora_alpha: 64", "lora_alpha: 64"),
    (
        "freeze_parameters_ratio",
        "no effect",
        "freeze_parameters_ratio: 0.5",
        "freeze_parameters_ratio: 0.5, tuner_type: full",
    ),
    (
        "lora_ga_iters",
        "no effect",
        "lora_ga_iters: 4",
        "lora_ga_iters: 4, init_weights: lora-ga",
    ),
    ("adalora_target_r", "no effect", "adalora_target_r: 4", "adalora_target_r: 8"),
    ("adapter_act", "no effect", "adapter_act: relu", "adapter_act: relu, tuner_type: adapter"),
    ("adapter_length", "no effect", "adapter_length: 64", "adapter_length: 128"),
    ("boft_block_size", "no effect", "boft_block_size: 8", "boft_block_size: 8, tuner_type: boft"),
    (
        "fourier_scaling",
        "no effect",
        "fourier_scaling: 1",
        "fourier_scaling: 1, tuner_type: fourierft",
    ),
    (
        "llamapro_num_new_blocks",
        "no effect",
        "llamapro_num_new_blocks: 2",
        "llamapro_num_new_blocks: 2, tuner_type: llamapro",
    ),
    ("reft_rank", "no effect", "reft_rank: 8", "reft_rank: 8, tuner_type: bone"),
    ("vera_rank", "no effect", "vera_rank: 8", "vera_rank: 8, tuner_type: vera"),
    (
        "galore_rank",
        "no effect",
        "galore_rank: 64, tuner_type: full",
        "galore_rank: 64, use_galore: true, tuner_type: full",
    ),
    (
        "lisa_step_interval",
        "no effect",
        "lisa_step_interval: 5, tuner_type: full",
        "lisa_step_interval: 5, lisa_activated_layers: 2, tuner_type: full",
    ),
    (
        "bnb_4bit_compute_dtype",
        "no effect",
        "bnb_4bit_compute_dtype: bfloat16, quant_method: bnb, quant_bits: 8",
        "bnb_4bit_compute_dtype: bfloat16, quant_method: bnb, quant_bits: 4",
    ),
    ("hqq_axis", "no effect", "hqq_axis: 1", "hqq_axis: 1, quant_method: hqq, quant_bits: 4"),
    (
        "packing_length",
        "no effect",
        "packing_length: 4096",
        "packing_length: 4096, packing: true, attn_impl: flash_attn",
    ),
    (
        "gradient_checkpointing_kwargs",
        "no effect",
        "gradient_checkpointing_kwargs: {use_reentrant: false}, gradient_checkpointing: false",
        "gradient_checkpointing_kwargs: {use_reentrant: false}",
    ),
    (
        "swanlab_project",
        "no effect",
        "swanlab_project: mine",
        "swanlab_project: mine, report_to: [swanlab]",
    ),
    (
        "tuner_backend",
        "Unsloth",
        "tuner_backend: unsloth, tuner_type: adalora",
        "tuner_backend: unsloth, tuner_type: lora",
    ),
    (
        "zero_hpz_partition_size",
        "no effect",
        "zero_hpz_partition_size: 2",
        "zero_hpz_partition_size: 2, launch.strategy: zero3",
    ),
]
"""The argument that it is told at, a word of what is told, what breaks it, what does not."""


def _problems(folder: Path, settings: str, machine: Machine = LINUX) -> list[Problem]:
    lines = [line for line in WHOLE.splitlines() if "lora_rank" not in line]
    said = [setting for setting in _split(settings) if not setting.startswith("launch.")]
    launch = [setting[7:] for setting in _split(settings) if setting.startswith("launch.")]
    names = {setting.partition(":")[0] for setting in said}
    lines = [line for line in lines if line.strip().partition(":")[0] not in names]
    at = lines.index("swift:") + 1
    lines[at:at] = [f"  {setting}" for setting in said]
    lines += ["launch:", *(f"  {setting}" for setting in launch)] if launch else []
    return check_recipe(read_recipe(write_recipe(folder, "\n".join(lines) + "\n")), machine)


def _split(settings: str) -> list[str]:
    """The settings between the commas that stand outside of brackets."""
    parts, depth = [""], 0
    for character in settings:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


@pytest.mark.parametrize(("key", "word", "broken", "whole"), PAIRS)
def test_a_broken_rule_is_told_at_its_argument_and_the_repaired_recipe_passes(
    tmp_path: Path, key: str, word: str, broken: str, whole: str
) -> None:
    (problem,) = _problems(tmp_path, broken)
    assert problem.what.startswith(f"swift.{key}")
    assert word in problem.what
    assert problem.remedy
    line = int(problem.where.rpartition(":")[2])
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8").splitlines()
    assert text[line - 1].strip().startswith(f"{key}:")
    assert _problems(tmp_path, whole) == []


@pytest.mark.parametrize("machine", [Machine(wsl=True), Machine(windows=True)])
def test_a_paged_optimizer_is_refused_where_nothing_pages(tmp_path: Path, machine: Machine) -> None:
    (problem,) = _problems(tmp_path, "optim: paged_adamw_8bit", machine)
    assert "adamw_8bit" in problem.remedy
    assert _problems(tmp_path, "optim: paged_adamw_8bit") == []
    assert _problems(tmp_path, "optim: adamw_8bit", machine) == []


def test_every_rule_has_its_pair() -> None:
    told = [key for key, word, _, _ in PAIRS if word != "no effect"]
    untested = [rule.keys for rule in RULES if not set(rule.keys) & {*told, "optim"}]
    assert untested == []
    idle = [key for key, word, _, _ in PAIRS if word == "no effect"]
    assert [kind.names for kind in IDLE if not any(kind.covers(key) for key in idle)] == []


def test_all_that_does_not_go_together_is_told_at_once(tmp_path: Path) -> None:
    settings = "packing: true, quant_bits: 4, lisa_activated_layers: 2, galore_rank: 8"
    told = [problem.what.split()[0] for problem in _problems(tmp_path, settings)]
    assert told == [
        *("swift.packing:", "swift.lisa_activated_layers:", "swift.quant_bits:"),
        "swift.galore_rank",
    ]


def test_a_default_that_is_written_out_is_no_fault(tmp_path: Path) -> None:
    assert _problems(tmp_path, "galore_rank: 128, tuner_type: full, lora_dropout: 0.05") == []


def test_an_argument_of_a_wrong_type_is_told_once(tmp_path: Path) -> None:
    (problem,) = _problems(tmp_path, "warmup_ratio: many, warmup_steps: 10")
    assert "is not a number" in problem.what


def test_liger_has_losses_of_its_own_in_preference_training(tmp_path: Path) -> None:
    text = WHOLE.replace("lora_rank: 16", "use_liger_kernel: true\n  loss_type: [sigmoid]")
    text += "task: dpo\n"
    assert check_recipe(read_recipe(write_recipe(tmp_path, text)), LINUX) == []


@pytest.mark.parametrize(
    ("entry", "word"),
    [("no_such_lever", "none is called"), ("no/such.py", "there is no file"), ("x.py", "no file")],
)
def test_a_plugin_that_is_not_there_is_told(tmp_path: Path, entry: str, word: str) -> None:
    path = write_recipe(tmp_path, WHOLE + f"plugins: [{entry}]\n")
    (problem,) = check_recipe(read_recipe(path))
    assert word in problem.what
    assert problem.where == f"{path}:17"


def test_a_plugin_of_the_users_own_is_taken(tmp_path: Path) -> None:
    (tmp_path / "own.py").touch()
    path = write_recipe(tmp_path, WHOLE + f"plugins: ['{tmp_path / 'own.py'}']\n")
    assert check_recipe(read_recipe(path)) == []
