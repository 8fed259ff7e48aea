"""Arguments of `swift rlhf` that cancel each other, do nothing, or stop a training late.

As palmswift.recipes.rules: each was read in the source that its comment names (ms-swift 4.6.0).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from palmswift.errors import Problem
from palmswift.paths import project_path
from palmswift.recipes.plugins import PLUGINS, is_plugin_file
from palmswift.recipes.rules import Idle, Rule, Settings

BUILT_IN_REWARDS = (
    *("accuracy", "cosine", "format", "math", "react_format", "repetition", "soft_overlong"),
    "toolbench",
)
"""swift/rewards/orm.py: orms."""

_WITHOUT_REFERENCE = ("cpo", "orpo", "simpo")
_PADDING_FREE = ("dpo", "gkd", "grpo", "kto")
_REWARDED_BY = ("reward_funcs", "reward_model", "use_gym_env", "gym_env", "teacher_model_server")


def _is(*tasks: str) -> Any:
    return lambda s: s.is_word("rlhf_type", *tasks)


def _number(s: Settings, name: str, default: int) -> int:
    value = s[name]
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _generated(s: Settings) -> int:
    """Completions of one generation on one process (rlhf_trainers/args_mixin.py)."""
    batch = _number(s, "per_device_train_batch_size", 1)
    # rlhf_args.py _set_default: 1 where a GRPO recipe does not say it
    steps = _number(s, "steps_per_generation", _number(s, "gradient_accumulation_steps", 1))
    return _number(s, "generation_batch_size", batch * steps) * _number(s, "world_size", 1)


def _uneven_groups(s: Settings) -> bool:
    group = _number(s, "num_generations", 8)
    return s.is_word("rlhf_type", "grpo") and group > 1 and _generated(s) % group != 0


def _uneven_evaluation(s: Settings) -> bool:
    group = _number(s, "num_generations_eval", _number(s, "num_generations", 8))
    batch = _number(s, "per_device_eval_batch_size", 1) * _number(s, "world_size", 1)
    evaluates = not s.is_word("eval_strategy", "no", "None")
    return s.is_word("rlhf_type", "grpo") and evaluates and group > 0 and batch % group != 0


def _unweighted(s: Settings) -> bool:
    weights, rewards = s["reward_weights"], s["reward_funcs"]
    if not isinstance(weights, list) or not isinstance(rewards, list):
        return False
    return not s["reward_model"] and not s["use_gym_env"] and len(weights) != len(rewards)


def _alone(s: Settings) -> bool:
    """swift/pipelines/train/kto.py prepare_kto_dataset"""
    rows = _number(s, "per_device_train_batch_size", 1) * _number(s, "world_size", 1)
    whole = rows * _number(s, "gradient_accumulation_steps", 16)
    paired = not s.is_word("loss_type", "apo_zero_unpaired")
    return s.is_word("rlhf_type", "kto") and paired and whole <= 1


METHOD_RULES = (
    Rule(
        ("reward_weights",),
        _unweighted,
        "reward_weights are not as many as reward_funcs, and training stops",
        "write one weight for each reward, in their order",
    ),
    # swift/rlhf_trainers/args_mixin.py _init_generation_batch_params
    Rule(
        ("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps"),
        _uneven_groups,
        "the completions of one step (per_device_train_batch_size times accumulation, or"
        " generation_batch_size) are no multiple of num_generations ({num_generations})",
        "make the batch a multiple of it: a group is compared within one step",
    ),
    Rule(
        ("per_device_eval_batch_size", "num_generations"),
        _uneven_evaluation,
        "per_device_eval_batch_size ({per_device_eval_batch_size}) is no multiple of the"
        " completions that are generated for a row",
        "make it num_generations or a multiple, write num_generations_eval: 1, or"
        " eval_strategy: no",
    ),
    # swift/arguments/rlhf_args.py _check_teacher; a group of one has no advantage
    Rule(
        ("num_generations",),
        lambda s: s.is_word("rlhf_type", "grpo")
        and _number(s, "num_generations", 8) < 2
        and not s["teacher"],
        "a completion is compared with others of its question, and num_generations is"
        " {num_generations}",
        "write num_generations: 4 or more",
    ),
    Rule(
        ("temperature",),
        lambda s: s.is_word("rlhf_type", "grpo") and s["temperature"] == 0,
        "at temperature 0 all completions of a question are the same, so that none is better",
        "write temperature: 1.0",
    ),
    # swift/arguments/rlhf_args.py _init_grpo
    Rule(
        ("truncation_strategy",),
        lambda s: s.is_word("rlhf_type", "grpo") and s.is_word("truncation_strategy", "right"),
        "grpo takes truncation_strategy delete or left, and stops at {truncation_strategy}",
        "write delete",
    ),
    Rule(
        ("reward_funcs",),
        lambda s: "soft_overlong" in s.words("reward_funcs") and s["soft_cache_length"] is None,
        "the reward soft_overlong needs soft_cache_length, and training stops",
        "write soft_cache_length: 64, the tokens before max_completion_length that cost reward",
    ),
    # GRPO's loss is about 0 from the first step to the last: advantages of a group sum to 0
    Rule(
        ("metric_for_best_model",),
        lambda s: s.is_word("rlhf_type", "grpo")
        and "loss" in str(s["metric_for_best_model"] or "")
        and s["load_best_model_at_end"] is True,
        "the loss of grpo says nothing of how good a checkpoint is",
        "write metric_for_best_model: reward and greater_is_better: true",
    ),
    # swift/arguments/rlhf_args.py _init_rollout
    Rule(
        ("use_vllm",),
        lambda s: s["use_vllm"] is True and s["vllm_mode"] is None and s.is_word(
            "rlhf_type", "gkd", "grpo"
        ),
        "use_vllm without vllm_mode stops the training",
        "write vllm_mode: server for a `swift rollout` of its own, or colocate",
    ),
    Rule(
        ("vllm_mode",),
        lambda s: s["vllm_mode"] is not None and s["use_vllm"] is not True,
        "vllm_mode without use_vllm stops the training",
        "write use_vllm: true, or take it away",
    ),
    Rule(
        ("async_generate",),
        lambda s: s["async_generate"] is True and not s.is_word("vllm_mode", "server"),
        "async_generate needs vllm_mode server, and training stops",
        "take it away",
    ),
    # vLLM takes its share when it starts and, at sleep_level 0, never gives it back
    Rule(
        ("vllm_gpu_memory_utilization", "vllm_mode"),
        lambda s: s.is_word("vllm_mode", "colocate")
        and not s["sleep_level"]
        and float(s["vllm_gpu_memory_utilization"] or 0.9) > 0.5,
        "vLLM in the training's process keeps {vllm_gpu_memory_utilization} of the card all along,"
        " which leaves less than half to train with",
        "write vllm_gpu_memory_utilization: 0.3 and sleep_level: 1, or take use_vllm away: the"
        " model then generates by itself",
    ),
    # swift/arguments/rlhf_args.py _check_padding_free
    Rule(
        ("packing", "padding_free"),
        lambda s: (s["packing"] is True or s["padding_free"] is True)
        and s["rlhf_type"] is not None
        and not s.is_word("rlhf_type", *_PADDING_FREE),
        "{rlhf_type} cannot pack rows, and training stops",
        "take it away",
    ),
    # swift/arguments/rlhf_args.py __post_init__
    Rule(
        ("ref_model", "ref_model_revision", "ref_adapters"),
        _is(*_WITHOUT_REFERENCE),
        "{rlhf_type} knows no reference model, and training stops",
        "take it away, or write task: dpo",
    ),
    Rule(
        ("ref_model",),
        lambda s: s.is_word("rlhf_type", "dpo", "kto", "grpo")
        and not s.is_word("tuner_type", "full"),
        "an adapter is its own reference when it is switched off, and training stops at ref_model",
        "take it away",
    ),
    # trl's losses are functions of beta times a difference
    Rule(
        ("beta",),
        lambda s: s.is_word("rlhf_type", "dpo", "kto", "simpo", "cpo") and s["beta"] == 0,
        "with beta 0 the preference has no weight, and nothing is learnt of it",
        "write beta: 0.1 (simpo: 2.0)",
    ),
    Rule(
        ("per_device_train_batch_size", "gradient_accumulation_steps"),
        _alone,
        "kto measures an answer against those of other rows of its step, and there is one row",
        "write per_device_train_batch_size: 2 or more, or gradient_accumulation_steps: 8",
    ),
    # swift/arguments/rlhf_args.py _process_loss_type
    Rule(
        ("loss_type",),
        lambda s: len(s.words("loss_type")) > 1 and not s.is_word("rlhf_type", "dpo"),
        "only dpo mixes several loss types",
        "write one",
    ),
    Rule(
        ("loss_type",),
        lambda s: s.is_word("rlhf_type", "simpo") and s.words("loss_type") not in (
            ["None"], ["simpo"]
        ),
        "simpo with another loss_type is CPO",
        "write task: cpo, or take loss_type away",
    ),
    # swift/arguments/rlhf_args.py _check_gkd and _check_teacher
    Rule(
        ("seq_kd",),
        lambda s: s["seq_kd"] is True,
        "seq_kd was never made in ms-swift, and training stops",
        "let the teacher write the rows first (`swift infer`), and train on them with lmbda: 0",
    ),
    Rule(
        ("lmbda",),
        lambda s: isinstance(s["lmbda"], int | float) and not 0 <= s["lmbda"] <= 1,
        "lmbda is the share of steps that learn from the student's own answers: 0 to 1",
        "write lmbda: 0.5",
    ),
    Rule(
        ("teacher_model_server",),
        lambda s: bool(s["teacher_model_server"])
        and s.is_word("rlhf_type", "gkd")
        and s["gkd_logits_topk"] is None,
        "a teacher behind a server tells only its likeliest tokens, so gkd_logits_topk is needed",
        "write gkd_logits_topk: 20",
    ),
    Rule(
        ("use_liger_kernel",),
        lambda s: s["use_liger_kernel"] is True
        and s.is_word("rlhf_type", "gkd")
        and (not s["teacher"] or bool(s["teacher_model_server"])
             or s["gkd_logits_topk"] is not None),
        "Liger's distillation needs a teacher on this machine and all of its logits",
        "write use_liger_kernel: false, or teacher: and no gkd_logits_topk",
    ),
    # swift/callbacks/early_stop.py on_save
    Rule(
        ("early_stop_interval",),
        lambda s: bool(s["early_stop_interval"]) and s.is_word("save_strategy", "no"),
        "early_stop_interval is looked at when a checkpoint is saved, and save_strategy is no",
        "write save_strategy: steps and save_steps as eval_steps",
    ),
)  # fmt: skip
"""In the order in which they are told."""

METHOD_IDLE = tuple(
    Idle(names, _is(*tasks), f"only task {' or '.join(tasks)} reads it", "take it away")
    for names, tasks in (
        # swift/rlhf_trainers: each trainer takes its own from its arguments
        (("simpo_gamma",), ("simpo",)),
        (("cpo_alpha",), ("cpo", "simpo")),
        (("desirable_weight", "undesirable_weight"), ("kto",)),
        (("rpo_alpha", "ld_alpha", "discopop_tau", "loss_weights"), ("dpo",)),
        (("label_smoothing",), ("cpo", "dpo")),
        (("sft_alpha", "lmbda", "gkd_logits_topk"), ("gkd",)),
        (
            ("num_generations", "num_generations_eval", "num_iterations", "reward_*", "epsilon*",
             "scale_rewards", "dynamic_sample", "advantage_estimator", "overlong_filter"),
            ("grpo",),
        ),
        (("max_completion_length", "temperature"), ("gkd", "grpo")),
        (("center_rewards_coefficient",), ("rm",)),
    )
)  # fmt: skip
"""As `IDLE`, for `swift rlhf` alone: the other commands do not know most of these arguments."""


def given_to_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the rules ask for beside the arguments: the method, its teacher, all processes."""
    launch = values.get("launch")
    said = launch if isinstance(launch, Mapping) else {}
    parts = [said.get(name, 1) for name in ("processes", "nodes")]
    whole = all(isinstance(part, int) for part in parts)
    return {
        "rlhf_type": values.get("task"),
        "teacher": values.get("teacher"),
        "world_size": prod(parts) if whole else 1,
    }


def recipe_problems(values: Mapping[str, Any], place: Any) -> Iterator[Problem]:
    """What of a method concerns the recipe's other keys: its teacher, and where rewards are made.

    `place` says where a key stands.
    """
    task = values.get("task", "sft")
    if values.get("teacher") is not None and task not in ("gkd", "grpo"):
        what = f"teacher: nothing of it is learnt by task {task}"
        yield Problem(what, place(("teacher",)), "write task: gkd, or take it away")
    swift, plugins = values.get("swift"), values.get("plugins")
    if task != "grpo" or not isinstance(swift, Mapping):
        return
    # swift/rlhf_trainers/grpo_trainer.py __init__, after the model has been loaded
    if values.get("teacher") is None and not any(swift.get(name) for name in _REWARDED_BY):
        remedy = "write swift.reward_funcs: [format], or a reward of your own (docs/methods.md)"
        what = "task grpo has nothing to reward: swift.reward_funcs is not said"
        yield Problem(what, place(("task",)), remedy)
    rewards = swift.get("reward_funcs")
    if not isinstance(rewards, list | str):
        return
    made = _names_in(plugins if isinstance(plugins, list) else [])
    for name in [rewards] if isinstance(rewards, str) else rewards:
        if made is not None and name not in (*BUILT_IN_REWARDS, *made):
            yield Problem(
                f"swift.reward_funcs: no reward is called {name!r}",
                place(("swift", "reward_funcs")),
                f"of ms-swift: {', '.join(BUILT_IN_REWARDS)}; one of your own is made by a file in"
                f" plugins that ends with orms[{name!r}] = YourReward",
            )


def _names_in(plugins: list[Any]) -> set[str] | None:
    """The words in quotation marks of all plugins; None where a file cannot be read as Python."""
    words: set[str] = set()
    for entry in plugins:
        if not isinstance(entry, str):
            continue
        path = project_path(entry) if is_plugin_file(entry) else PLUGINS / f"{entry}.py"
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            return None  # told of by the check of plugins, or by Python when it is loaded
        words |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    return words
