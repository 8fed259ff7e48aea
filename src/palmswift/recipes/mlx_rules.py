"""Which of ms-swift's arguments MLX has a counterpart for; a recipe with others is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from palmswift.errors import Problem
from palmswift.recipes.rules import BINARY_LOSS_SCALES, Settings

MAPPED = {
    *("tuner_type", "target_modules", "lora_rank", "lora_alpha", "lora_dropout", "use_rslora"),
    *("learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "weight_decay"),
    *("max_grad_norm", "num_train_epochs", "max_steps", "seed", "data_seed", "optim"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "torch_dtype", "use_cpu"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("gradient_checkpointing", "eval_strategy", "eval_steps", "save_strategy", "save_steps"),
    *("save_total_limit", "load_best_model_at_end", "logging_steps"),
}
"""Carried over: each has the same meaning there."""

BY_TEMPLATE = {
    *("model_type", "template", "enable_thinking", "add_non_thinking_prefix", "loss_scale"),
    *("preserve_thinking", "max_length", "truncation_strategy", "split_dataset_ratio"),
    *("agent_template", "response_prefix", "norm_bbox", "use_chat_template", "add_eos"),
}
"""Decide the tokens and which are trained on; ms-swift's own template makes them for MLX too."""

WITHOUT_MEANING = {
    *("bf16", "fp16", "dataset_num_proc", "dataloader_num_workers", "load_from_cache_file"),
    *("check_model", "report_to", "prediction_loss_only", "eval_accumulation_steps"),
    *("metric_for_best_model", "greater_is_better", "dataset_shuffle"),
}
"""Say how ms-swift works, and change nothing of what is trained."""

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")


class _Rule(NamedTuple):
    key: str
    broken: Callable[[Settings], bool]
    what: str
    remedy: str


_RULES = (
    _Rule(
        "tuner_type",
        lambda s: not s.is_word("tuner_type", "lora", "full"),
        "MLX trains lora and full here, not {tuner_type}",
        "write tuner_type: lora",
    ),
    _Rule(
        "optim",
        lambda s: not s.is_word("optim", *OPTIMIZERS),
        "MLX has no optimizer like {optim}",
        "write optim: adamw_torch",
    ),
    _Rule(
        "lr_scheduler_type",
        lambda s: not s.is_word("lr_scheduler_type", *SCHEDULES),
        "MLX has no schedule like {lr_scheduler_type}",
        f"write one of {', '.join(SCHEDULES)}",
    ),
    _Rule(
        "loss_scale",
        lambda s: not set(str(s["loss_scale"]).split("+")) <= BINARY_LOSS_SCALES,
        "MLX trains on a token or does not; loss_scale {loss_scale} weighs them",
        "write loss_scale: default+ignore_empty_think",
    ),
    _Rule(
        "use_liger_kernel",
        lambda s: s["use_liger_kernel"] is True,
        "Liger's kernels are for GPUs that run Triton",
        "write use_liger_kernel: false",
    ),
    _Rule(
        "quant_method",
        lambda s: s["quant_method"] is not None,
        "bitsandbytes is for CUDA; MLX trains on weights that mlx_lm.convert -q has quantised",
        "take quant_method and its bits away, and name such a model in model.id",
    ),
)  # fmt: skip


def mlx_problems(
    task: str, source: str, settings: Settings, place: Callable[[str], str]
) -> Iterator[Problem]:
    """What of a training MLX cannot do as the recipe says it."""
    if source == "modelscope":
        what = "model.source: mlx-lm fetches models from Hugging Face, not from ModelScope"
        remedy = "write model.source: huggingface, or local with a folder in model.id"
        yield Problem(what, place(""), remedy)
    if task not in ("sft", "pt"):
        yield Problem(f"task: MLX trains sft and pt here, not {task}", place(""), "write task: sft")
    told = set()
    for rule in _RULES:
        if rule.broken(settings):
            told.add(rule.key)
            what = rule.what.format_map(settings)
            yield Problem(f"swift.{rule.key}: {what}", place(rule.key), rule.remedy)
    known = MAPPED | BY_TEMPLATE | WITHOUT_MEANING | told
    for name in settings.said:
        if name not in known and settings.changes(name) and not name.startswith(("bnb_", "quant_")):
            what = f"swift.{name} has no counterpart in MLX"
            yield Problem(what, place(name), "take it away, or train with launch.engine: swift")
