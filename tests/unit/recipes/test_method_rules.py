"""Each rule of a method has a recipe that breaks it and the nearest one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_recipes import WHOLE, write_recipe

from palmswift.errors import Problem
from palmswift.recipes.catalogue import load_catalogue
from palmswift.recipes.check import check_recipe
from palmswift.recipes.method_rules import BUILT_IN_REWARDS, METHOD_IDLE, METHOD_RULES
from palmswift.recipes.source import read_recipe

GRPO = "reward_funcs: [format], gradient_accumulation_steps: 8"

PAIRS = [
    ("grpo", "reward_funcs", "beta: 0.1, gradient_accumulation_steps: 8", GRPO),
    ("grpo", "reward_weights", f"{GRPO}, reward_weights: [1, 2]", f"{GRPO}, reward_weights: [1]"),
    ("grpo", "num_generations", f"{GRPO}, num_generations: 3", f"{GRPO}, num_generations: 4"),
    (
        "grpo",
        "per_device_train_batch_size",
        "reward_funcs: [format], per_device_train_batch_size: 12",
        "reward_funcs: [format], per_device_train_batch_size: 16",
    ),
    (
        "grpo",
        "per_device_eval_batch_size",
        f"{GRPO}, eval_strategy: steps, per_device_eval_batch_size: 1",
        f"{GRPO}, eval_strategy: steps, per_device_eval_batch_size: 1, num_generations_eval: 1",
    ),
    ("grpo", "num_generations", f"{GRPO}, num_generations: 1", f"{GRPO}, num_generations: 2"),
    ("grpo", "temperature", f"{GRPO}, temperature: 0.0", f"{GRPO}, temperature: 0.7"),
    (
        "grpo",
        "truncation_strategy",
        f"{GRPO}, truncation_strategy: right",
        f"{GRPO}, truncation_strategy: left",
    ),
    (
        "grpo",
        "reward_funcs",
        "reward_funcs: [soft_overlong], gradient_accumulation_steps: 8",
        "reward_funcs: [soft_overlong], gradient_accumulation_steps: 8, soft_cache_length: 9",
    ),
    (
        "grpo",
        "metric_for_best_model",
        f"{GRPO}, load_best_model_at_end: true, metric_for_best_model: eval_loss,"
        " save_strategy: best",
        f"{GRPO}, load_best_model_at_end: true, metric_for_best_model: reward, save_strategy: best",
    ),
    (
        "grpo",
        "use_vllm",
        f"{GRPO}, use_vllm: true",
        f"{GRPO}, use_vllm: true, vllm_mode: server",
    ),
    (
        "grpo",
        "vllm_mode",
        f"{GRPO}, vllm_mode: server",
        f"{GRPO}, vllm_mode: server, use_vllm: true",
    ),
    (
        "grpo",
        "async_generate",
        f"{GRPO}, async_generate: true",
        f"{GRPO}, async_generate: true, vllm_mode: server, use_vllm: true",
    ),
    (
        "grpo",
        "vllm_mode",
        f"{GRPO}, use_vllm: true, vllm_mode: colocate",
        f"{GRPO}, use_vllm: true, vllm_mode: colocate, vllm_gpu_memory_utilization: 0.3",
    ),
    (
        "orpo",
        "packing",
        "packing: true, attn_impl: flash_attn",
        "packing: false, attn_impl: flash_attn",
    ),
    ("simpo", "padding_free", "padding_free: true, attn_impl: flash_attn", "beta: 2.0"),
    ("orpo", "ref_model", "ref_model: base", "beta: 0.2"),
    ("dpo", "ref_model", "ref_model: base", "ref_model: base, tuner_type: full, lora_rank: null"),
    ("dpo", "beta", "beta: 0.0", "beta: 0.1"),
    (
        "kto",
        "gradient_accumulation_steps",
        "gradient_accumulation_steps: 1",
        "gradient_accumulation_steps: 1, per_device_train_batch_size: 2",
    ),
    ("kto", "loss_type", "loss_type: [kto, other]", "loss_type: [kto]"),
    ("simpo", "loss_type", "loss_type: [sigmoid]", "loss_type: [simpo]"),
    ("gkd", "seq_kd", "seq_kd: true", "seq_kd: false"),
    ("gkd", "lmbda", "lmbda: 1.5", "lmbda: 1.0"),
    (
        "gkd",
        "teacher_model_server",
        "teacher_model_server: http://127.0.0.1:1",
        "teacher_model_server: http://127.0.0.1:1, gkd_logits_topk: 20",
    ),
    ("gkd", "use_liger_kernel", "use_liger_kernel: true", "use_liger_kernel: false"),
    (
        "sft",
        "early_stop_interval",
        "early_stop_interval: 2, eval_strategy: steps, save_strategy: no",
        "early_stop_interval: 2, eval_strategy: steps, save_strategy: steps",
    ),
    ("dpo", "simpo_gamma", "simpo_gamma: 0.5", "rpo_alpha: 0.5"),
    ("orpo", "rpo_alpha", "rpo_alpha: 0.5", "beta: 0.5"),
    ("orpo", "cpo_alpha", "cpo_alpha: 0.5", "beta: 0.5"),
    ("dpo", "desirable_weight", "desirable_weight: 2.0", "label_smoothing: 0.1"),
    ("kto", "num_generations", "num_generations: 4", "undesirable_weight: 2.0"),
    ("orpo", "label_smoothing", "label_smoothing: 0.1", "beta: 0.5"),
    ("dpo", "lmbda", "lmbda: 0.9", "ld_alpha: 0.9"),
    ("dpo", "temperature", "temperature: 0.5", "discopop_tau: 0.1"),
    ("dpo", "center_rewards_coefficient", "center_rewards_coefficient: 0.1", "beta: 0.1"),
]


def problems(folder: Path, task: str, swift: str, extra: str = "") -> list[Problem]:
    """What the check says of a recipe of `task` with these arguments."""
    lines = "".join(f"  {word}\n" for word in _arguments(swift))
    names = {line.split(":")[0].strip() for line in lines.splitlines()}
    kept = [line for line in WHOLE.splitlines() if line.split(":")[0].strip() not in names]
    text = "\n".join(kept).replace("swift:", f"task: {task}\n{extra}swift:\n{lines.rstrip()}")
    return check_recipe(read_recipe(write_recipe(folder, text)))


def _arguments(swift: str) -> list[str]:
    """`a: 1, b: [x, y]` as its arguments."""
    parts, depth = [""], 0
    for character in swift:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if not part.strip().endswith("null")]


@pytest.mark.parametrize(("task", "key", "broken", "sound"), PAIRS)
def test_a_combination_is_told_with_its_remedy_and_its_neighbour_is_not(
    tmp_path: Path, task: str, key: str, broken: str, sound: str
) -> None:
    told = [p for p in problems(tmp_path, task, broken) if key in p.what]
    assert len(told) == 1, told
    assert told[0].remedy
    extra = "lora_rank" if "tuner_type: full" in sound else ""
    rest = [p for p in problems(tmp_path, task, sound) if extra == "" or extra not in p.what]
    assert rest == []


def test_every_rule_is_broken_by_one_of_these(tmp_path: Path) -> None:
    whats = [p.what for pair in PAIRS for p in problems(tmp_path, pair[0], pair[2])]
    for rule in METHOD_RULES:
        fixed = rule.what.split("{")[0] or rule.what.split("}")[1]
        assert any(fixed.strip() in what for what in whats), rule.what
    for idle in METHOD_IDLE:
        assert any(idle.why in what for what in whats), idle.why


def test_the_arguments_of_the_rules_are_those_of_the_installed_version() -> None:
    flags = set(load_catalogue().flags("rlhf"))
    named = {key for rule in METHOD_RULES for key in rule.keys} - {"rlhf_type"}
    assert named <= flags
    for name in {name for idle in METHOD_IDLE for name in idle.names}:
        assert any(flag.startswith(name.rstrip("*")) for flag in flags), name


def test_the_groups_of_all_processes_are_counted(tmp_path: Path) -> None:
    swift = "reward_funcs: [format], per_device_train_batch_size: 4"
    assert problems(tmp_path, "grpo", swift)
    assert problems(tmp_path, "grpo", swift, "launch:\n  processes: 2\n") == []


REWARD = "from swift.rewards import ORM, orms\n\norms['mine'] = ORM\n"


def test_a_reward_has_to_be_made_by_ms_swift_or_by_a_plugin(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(REWARD, encoding="utf-8")
    swift = "reward_funcs: [format, mine], gradient_accumulation_steps: 8"
    assert problems(tmp_path, "grpo", swift, f"plugins: [{plugin}]\n") == []
    (told,) = problems(tmp_path, "grpo", swift)
    assert "no reward is called 'mine'" in told.what
    assert "orms['mine']" in told.remedy


def test_a_plugin_that_python_cannot_read_is_not_judged_by_its_names(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("def (", encoding="utf-8")
    swift = "reward_funcs: [mine], gradient_accumulation_steps: 8"
    assert problems(tmp_path, "grpo", swift, f"plugins: [{plugin}]\n") == []


def test_a_missing_reward_file_is_told(tmp_path: Path) -> None:
    told = problems(tmp_path, "grpo", GRPO, "plugins: [nowhere/mine.py]\n")
    assert [p.what for p in told] == ["plugins: there is no file 'nowhere/mine.py'"]


def test_only_a_task_that_learns_from_a_teacher_may_have_one(tmp_path: Path) -> None:
    teacher = "teacher:\n  id: Qwen/Qwen3-4B\n"
    assert problems(tmp_path, "gkd", "lmbda: 0.5", teacher) == []
    (told,) = problems(tmp_path, "dpo", "beta: 0.1", teacher)
    assert told.what.startswith("teacher: ")


def test_the_rewards_of_ms_swift_are_those_that_are_known() -> None:
    import ast
    from importlib.util import find_spec

    spec = find_spec("swift")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "rewards", "orm.py")
    (table,) = (
        node.value
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "orms"
    )
    assert isinstance(table, ast.Dict)
    keys = {key.value for key in table.keys if isinstance(key, ast.Constant)}
    assert keys == set(BUILT_IN_REWARDS)
