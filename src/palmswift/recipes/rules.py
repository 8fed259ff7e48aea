"""Arguments of ms-swift that cancel each other or do nothing, each combination with its remedy.

ms-swift's parser takes all of these; it then stops after minutes of loading, or trains without a
word in another way than was asked. Each rule was read in the source that its comment names:
ms-swift 4.6.0, transformers 5.19, PEFT 0.20, bitsandbytes 0.50.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isclose
from typing import Any, NamedTuple

from palmswift.errors import Problem
from palmswift.recipes.catalogue import Flag

BINARY_LOSS_SCALES = {"default", "last_round", "all", "base"}
BINARY_LOSS_SCALES |= {"ignore_empty_think", "ignore_think_prefix"}
_FLASH = {"flash_attn", "flash_attention_2", "flash_attention_3", "flash_attention_4"}
_WITH_BITS = {"bnb", "hqq", "eetq", "quanto"}


class Machine(NamedTuple):
    """What of the machine decides whether a setting works."""

    wsl: bool = False
    windows: bool = False


class Settings:
    """The arguments that a recipe gives to one command, and the command's defaults for the rest."""

    def __init__(
        self,
        said: Mapping[str, Any],
        flags: Mapping[str, Flag],
        command: str,
        machine: Machine,
        behind: Mapping[str, Any] | None = None,
    ) -> None:
        """`behind` are arguments that palmswift gives beside those that the recipe says."""
        self.said = said
        self.behind = behind or {}
        self.command = command
        self.machine = machine
        self._flags = flags

    def __getitem__(self, name: str) -> Any:
        """What the argument is; None for one that this version of ms-swift does not have."""
        for given in (self.said, self.behind):
            if name in given:
                return given[name]
        return self._flags[name].default if name in self._flags else None

    def changes(self, name: str) -> bool:
        """Whether the recipe gives the argument another value than it has anyway."""
        return name in self.said and self.said[name] != self._flags[name].default

    def words(self, name: str) -> list[str]:
        """The words of an argument that may be one word or a list."""
        value = self[name]
        return [str(word) for word in (value if isinstance(value, list) else [value])]

    def is_word(self, name: str, *words: str) -> bool:
        """Whether the argument is one of `words`, however YAML has typed it."""
        return str(self[name]) in words


class Rule(NamedTuple):
    """Arguments that do not go together."""

    keys: tuple[str, ...]
    """Told at the first of these that the recipe gives."""
    broken: Callable[[Settings], bool]
    what: str
    """May name an argument's value as `{name}`."""
    remedy: str


class Idle(NamedTuple):
    """Arguments that are read only when another one asks for it."""

    names: tuple[str, ...]
    """Whole names, or beginnings that end with `*`."""
    read: Callable[[Settings], bool]
    why: str
    remedy: str

    def covers(self, name: str) -> bool:
        """Whether the argument is one of these."""
        return any(
            name.startswith(known[:-1]) if known.endswith("*") else name == known
            for known in self.names
        )


def _full(s: Settings) -> bool:
    return s.is_word("tuner_type", "full")


def _bnb(s: Settings) -> bool:
    return s.is_word("quant_method", "bnb")


def _lisa(s: Settings) -> bool:
    return s["lisa_activated_layers"] not in (None, 0) or "lisa" in s.words("callbacks")


def _galore(s: Settings) -> bool:
    return s["use_galore"] is True or s["optimizer"] == "galore"


def _flash_less(s: Settings) -> bool:
    return (s["packing"] is True or s["padding_free"] is True) and not s.is_word(
        "attn_impl", *_FLASH
    )


def _liger_lost(s: Settings) -> bool:
    """swift/trainers/seq2seq_trainer.py compute_loss: any of these takes the logits' own way."""
    if s["use_liger_kernel"] is not True or s.command == "rlhf":
        return False
    return bool(
        not _binary_loss_scale(s)
        or s["loss_type"]
        or s["label_smoothing_factor"]
        or s["enable_dft_loss"] is True
        or s["enable_channel_loss"] is True
        or (s["sequence_parallel_size"] or 1) > 1
    )


def _binary_loss_scale(s: Settings) -> bool:
    """swift/template/base.py: is_binary_loss_scale goes before what the strategies say."""
    said = s["is_binary_loss_scale"]
    if said is not None:
        return said is True
    return set(str(s["loss_scale"] or "default").split("+")) <= BINARY_LOSS_SCALES


def _uneven_saves(s: Settings) -> bool:
    """transformers/training_args.py: at each save there has to be an evaluation to judge it."""
    if s["load_best_model_at_end"] is not True or not s.is_word("save_strategy", "steps"):
        return False
    saves, evaluations = s["save_steps"] or 500, s["eval_steps"] or s["save_steps"] or 500
    if not s.is_word("eval_strategy", "steps") or saves <= 0 or evaluations <= 0:
        return False
    if (saves < 1) != (evaluations < 1):
        return True
    return not isclose(saves / evaluations, round(saves / evaluations), abs_tol=1e-6)


def _unmatched_strategies(s: Settings) -> bool:
    evaluates = s["eval_strategy"] or s["save_strategy"]  # sft_args.py _init_eval_strategy
    return (
        s["load_best_model_at_end"] is True
        and not s.is_word("save_strategy", "best")
        and str(evaluates) != str(s["save_strategy"])
    )


def _two_precisions(s: Settings) -> bool:
    """swift/arguments/base_args/model_args.py sets the one that is not said from torch_dtype."""
    fp16, bf16 = s["fp16"], s["bf16"]
    if fp16 is None and s.is_word("torch_dtype", "float16", "float32"):
        fp16 = True
    if bf16 is None and s.is_word("torch_dtype", "bfloat16"):
        bf16 = True
    return fp16 is True and bf16 is True


def _cpu_in_device_map(s: Settings) -> bool:
    device_map = s["device_map"]
    places = device_map.values() if isinstance(device_map, dict) else [device_map]
    offloaded = {"cpu", "disk"} & {str(place) for place in places}
    return _bnb(s) and s["use_cpu"] is not True and bool(offloaded)


def _kwargs_think(s: Settings) -> bool:
    kwargs = s["model_kwargs"]
    return isinstance(kwargs, dict | str) and "enable_thinking" in kwargs


RULES = (
    # transformers/training_args.py: "At most one of fp16 and bf16 can be True"
    Rule(
        ("bf16", "fp16", "torch_dtype"),
        _two_precisions,
        "bf16 and fp16 are both on (ms-swift turns fp16 on for torch_dtype float16 and float32,"
        " bf16 for bfloat16), and training stops",
        "write torch_dtype: bfloat16 and bf16: true, and nothing of fp16",
    ),
    # swift/arguments/sft_args.py _check_padding_free
    Rule(
        ("packing", "padding_free"),
        _flash_less,
        "packing and padding_free need a flash attention kernel, and training stops without one",
        "write attn_impl: flash_attn (the flash-attn package has to be installed), or take it away",
    ),
    # swift/arguments/base_args/base_args.py _init_lazy_tokenize
    Rule(
        ("lazy_tokenize",),
        lambda s: s["lazy_tokenize"] is True and (s["packing"] is True or s["streaming"] is True),
        "lazy_tokenize goes with neither packing nor streaming, and training stops",
        "take lazy_tokenize away",
    ),
    # swift/trainers/seq2seq_trainer.py compute_loss; a warning is all that ms-swift gives
    Rule(
        ("use_liger_kernel",),
        _liger_lost,
        "Liger's fused loss is lost (all logits are kept: 1.8 MiB for each trained token) through"
        " a loss_scale that is not 0 or 1, loss_type, label_smoothing_factor, enable_dft_loss,"
        " enable_channel_loss or sequence_parallel_size",
        "take that argument away, or write use_liger_kernel: false so that the plan counts it",
    ),
    # swift/callbacks/lisa.py: assert args.tuner_type == 'full'
    Rule(
        ("lisa_activated_layers", "callbacks"),
        lambda s: _lisa(s) and not _full(s),
        "LISA trains whole layers, and stops under an adapter (tuner_type {tuner_type})",
        "write tuner_type: full, or take LISA away",
    ),
    # swift/optimizers/galore/utils.py projects the matrices that are trained: LoRA's own
    Rule(
        ("use_galore", "optimizer"),
        lambda s: _galore(s) and not _full(s),
        "GaLore shrinks the gradients of whole matrices; an adapter's are smaller than its"
        " projection, so nothing is saved (tuner_type {tuner_type})",
        "write tuner_type: full, or take GaLore away",
    ),
    # swift/callbacks/activation_cpu_offload.py: isinstance(model, FSDP) and nothing else
    Rule(
        ("callbacks",),
        lambda s: "activation_cpu_offload" in s.words("callbacks") and not s["fsdp"],
        "activation_cpu_offload acts on models under FSDP alone, and does nothing here",
        "write plugins: [checkpoint_offload], which offloads on one GPU",
    ),
    # swift/callbacks/early_stop.py compares the interval; best_metric is set by evaluations
    Rule(
        ("callbacks",),
        lambda s: "early_stop" in s.words("callbacks") and s["early_stop_interval"] is None,
        "early_stop without early_stop_interval fails at the first save that is no better",
        "write early_stop_interval: 3 and take early_stop out of callbacks",
    ),
    Rule(
        ("early_stop_interval",),
        lambda s: bool(s["early_stop_interval"]) and s.is_word("eval_strategy", "no"),
        "early_stop_interval counts evaluations, and eval_strategy is no",
        "write eval_strategy: steps, or take it away",
    ),
    # transformers/quantizers/quantizer_bnb_4bit.py; accelerate refuses the rest when it trains
    Rule(
        ("device_map",),
        _cpu_in_device_map,
        "device_map puts layers on the CPU or the disk, which bnb's quantised layers refuse",
        "take device_map away; plugins: [embedding_on_cpu] moves what can be moved",
    ),
    # swift/arguments/base_args/quant_args.py get_quantization_config
    Rule(
        ("quant_bits",),
        lambda s: s["quant_bits"] is not None and s["quant_method"] is None,
        "quant_bits alone quantises nothing: without quant_method the weights stay as they are",
        "write quant_method: bnb beside it",
    ),
    Rule(
        ("quant_method",),
        lambda s: s["quant_bits"] is None and s.is_word("quant_method", *_WITH_BITS),
        "quant_method {quant_method} without quant_bits stops the loading",
        "write quant_bits: 4 beside it",
    ),
    Rule(
        ("quant_bits",),
        lambda s: _bnb(s) and s["quant_bits"] is not None and not s.is_word("quant_bits", "4", "8"),
        "bnb quantises to 4 or 8 bits, not to {quant_bits}",
        "write quant_bits: 4",
    ),
    # transformers/trainer_utils.py validate_quantization_for_training
    Rule(
        ("quant_method",),
        lambda s: _full(s) and s["quant_method"] is not None,
        "quantised weights cannot be trained themselves, and training stops (tuner_type full)",
        "write tuner_type: lora, or take the quantisation away",
    ),
    # transformers/training_args.py, as _uneven_saves and _unmatched_strategies say
    Rule(
        ("save_steps", "eval_steps"),
        _uneven_saves,
        "load_best_model_at_end wants save_steps ({save_steps}) to be a multiple of eval_steps"
        " ({eval_steps}), both in steps or both as shares",
        "give save_steps and eval_steps the same value",
    ),
    Rule(
        ("load_best_model_at_end",),
        _unmatched_strategies,
        "load_best_model_at_end wants eval_strategy ({eval_strategy}) and save_strategy"
        " ({save_strategy}) to be the same",
        "write the same for both, or load_best_model_at_end: false",
    ),
    # swift/trainers/arguments.py _handle_hf_removed_args
    Rule(
        ("warmup_steps", "warmup_ratio"),
        lambda s: bool(s["warmup_ratio"]) and bool(s["warmup_steps"]),
        "warmup_ratio and warmup_steps are both set, and training stops",
        "keep one of them",
    ),
    Rule(
        ("warmup_ratio",),
        lambda s: (s["warmup_ratio"] or 0) >= 1,
        "warmup_ratio is a share of the steps and has to be below 1",
        "write warmup_steps for a number of steps",
    ),
    # transformers/optimization.py get_scheduler
    Rule(
        ("warmup_ratio", "warmup_steps"),
        lambda s: s.is_word("lr_scheduler_type", "constant")
        and bool(s["warmup_ratio"] or s["warmup_steps"]),
        "lr_scheduler_type constant warms nothing up",
        "write lr_scheduler_type: constant_with_warmup, or take the warm-up away",
    ),
    # transformers/training_args.py
    Rule(
        ("dataloader_prefetch_factor",),
        lambda s: s["dataloader_prefetch_factor"] is not None and s["dataloader_num_workers"] == 0,
        "dataloader_prefetch_factor needs loading processes, and dataloader_num_workers is 0",
        "write dataloader_num_workers: 1, or take it away",
    ),
    # swift/trainers/seq2seq_trainer.py prediction_step; transformers/trainer.py evaluation_loop
    Rule(
        ("predict_with_generate", "eval_metric"),
        lambda s: s["prediction_loss_only"] is True
        and (s["predict_with_generate"] is True or s["eval_metric"] is not None),
        "prediction_loss_only leaves nothing for predict_with_generate or eval_metric to measure",
        "write prediction_loss_only: false, or take the metric away",
    ),
    # swift/arguments/base_args/base_args.py _init_model_kwargs: environment variables, no more
    Rule(
        ("model_kwargs",),
        _kwargs_think,
        "model_kwargs only sets environment variables, so enable_thinking in it does nothing",
        "write enable_thinking: true or false as an argument of its own",
    ),
    # swift/pipelines/train/tuner.py prepare_adapter; unsloth raises without a GPU when imported
    Rule(
        ("tuner_backend",),
        lambda s: s.is_word("tuner_backend", "unsloth")
        and (not s.is_word("tuner_type", "lora", "full") or s["use_cpu"] is True),
        "Unsloth tunes lora and full, on a GPU (tuner_type {tuner_type}, use_cpu {use_cpu})",
        "write tuner_type: lora, or tuner_backend: peft",
    ),
    # swift/pipelines/train/tuner.py: "Convert trainable parameters from fp16 to fp32"
    Rule(
        ("lora_dtype",),
        lambda s: s.is_word("lora_dtype", "float16"),
        "lora_dtype float16 is turned into float32",
        "write bfloat16 to save memory, or float32",
    ),
    # bitsandbytes/functional.py get_paged: CUDA managed memory, which neither system oversubscribes
    Rule(
        ("optim",),
        lambda s: str(s["optim"]).startswith("paged_") and (s.machine.wsl or s.machine.windows),
        "optim {optim} keeps its state in CUDA managed memory, which Windows and WSL never move"
        " off the card: it saves nothing here",
        "write optim: adamw_8bit",
    ),
    # swift/template/templates/qwen.py: neither template has the other's prefix
    Rule(
        ("enable_thinking",),
        lambda s: s["enable_thinking"] is True and s.is_word("template", "qwen3_nothinking"),
        "template qwen3_nothinking has no think block, so enable_thinking does nothing",
        "write enable_thinking: false, or take the Thinking model with template: qwen3_thinking",
    ),
    Rule(
        ("enable_thinking",),
        lambda s: s["enable_thinking"] is False and s.is_word("template", "qwen3_thinking"),
        "a model with template qwen3_thinking thinks whatever enable_thinking says",
        "write enable_thinking: true, or take the Instruct model with template: qwen3_nothinking",
    ),
)  # fmt: skip
"""In the order in which they are told."""

_PEFT_NAMES = (
    *("lora_rank", "lora_alpha", "lora_dropout", "lora_bias", "lora_dtype", "lorap_lr_ratio"),
    *("use_rslora", "use_dora", "init_weights", "modules_to_save"),
    *("target_modules", "target_regex", "target_parameters"),
)


def _tuned_by(*tuners: str) -> Callable[[Settings], bool]:
    return lambda s: s.is_word("tuner_type", *tuners)


# swift/pipelines/train/tuner.py prepare_adapter and prepare_model read each tuner's own
IDLE = (
    Idle(_PEFT_NAMES, lambda s: not _full(s), "full tuning has no adapter", "take it away"),
    Idle(
        ("freeze_parameters*", "trainable_parameters*"),
        _full,
        "only tuner_type full reads it; an adapter freezes all of the model",
        "take it away; target_modules says what an adapter stands on",
    ),
    Idle(
        ("lora_ga_*",),
        lambda s: s.is_word("init_weights", "lora-ga"),
        "only init_weights: lora-ga reads it",
        "take it away",
    ),
    *(
        Idle((names,), _tuned_by(*tuners), f"only tuner_type {tuners[0]} reads it", "take it away")
        for names, tuners in (
            ("adalora_*", ("adalora",)),
            ("adapter_act", ("adapter",)),
            ("adapter_length", ("adapter",)),
            ("boft_*", ("boft",)),
            ("fourier_*", ("fourierft",)),
            ("llamapro_*", ("llamapro",)),
            ("reft_*", ("reft", "bone")),
            ("vera_*", ("vera",)),
        )
    ),
    Idle(("galore_*",), _galore, "only GaLore reads it", "write use_galore: true, or take it away"),
    Idle(
        ("lisa_step_interval",),
        _lisa,
        "only LISA reads it",
        "write lisa_activated_layers: 2, or take it away",
    ),
    # swift/arguments/base_args/quant_args.py get_quantization_config
    Idle(
        ("bnb_4bit_*",),
        lambda s: _bnb(s) and s.is_word("quant_bits", "4"),
        "only bnb in 4 bits reads it",
        "write quant_method: bnb and quant_bits: 4, or take it away",
    ),
    Idle(
        ("hqq_axis",),
        lambda s: s.is_word("quant_method", "hqq"),
        "only quant_method hqq reads it",
        "take it away",
    ),
    # swift/arguments/base_args/base_args.py, swift/pipelines/train/sft.py
    Idle(
        ("packing_*",),
        lambda s: s["packing"] is True,
        "only packing reads it",
        "write packing: true, or take it away",
    ),
    # swift/trainers/mixin.py _prepare_gradient_checkpointing
    Idle(
        ("gradient_checkpointing_kwargs",),
        lambda s: s["gradient_checkpointing"] is True or s["vit_gradient_checkpointing"] is True,
        "gradient_checkpointing is off",
        "write gradient_checkpointing: true, or take it away",
    ),
    # swift/arguments/sft_args.py _init_swanlab and _init_deepspeed
    Idle(
        ("swanlab_*",),
        lambda s: "swanlab" in s.words("report_to"),
        "report_to has no swanlab",
        "write report_to: [tensorboard, swanlab], or take it away",
    ),
    Idle(
        ("zero_hpz_partition_size", "deepspeed_autotp_size"),
        lambda s: bool(s["deepspeed"]),
        "only DeepSpeed reads it",
        "write launch.strategy: zero2, or take it away",
    ),
)  # fmt: skip
"""Each argument is told where it stands, unless its value is the default's."""


def this_machine() -> Machine:
    """What of this machine the rules ask for."""
    wsl = "microsoft" in platform.release().lower()  # the kernel's name under WSL
    return Machine(wsl=wsl, windows=platform.system() == "Windows")


def training_problems(
    settings: Settings,
    place: Callable[[str], str],
    rules: Sequence[Rule] = RULES,
    idle_arguments: Sequence[Idle] = IDLE,
) -> Iterator[Problem]:
    """What does not go together among a training's arguments; `place` says where one stands.

    The settings are of the right types: arguments with another problem are left out of them.
    """
    for rule in rules:
        key = next((key for key in rule.keys if key in settings.said), None)
        if key is not None and rule.broken(settings):
            what = rule.what.format_map(settings)
            yield Problem(f"swift.{key}: {what}", place(key), rule.remedy)
    for name in settings.said:
        for idle in idle_arguments:
            if idle.covers(name) and settings.changes(name) and not idle.read(settings):
                what = f"swift.{name} has no effect: {idle.why}"
                yield Problem(what, place(name), idle.remedy)
