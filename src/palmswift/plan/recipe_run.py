"""Reads from a recipe what the memory of its training depends on, or why that is not known."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from palmswift.plan.memory import TARGETS, Optimizer, TrainingRun
from palmswift.plan.shapes import shape_of
from palmswift.recipes.recipe import Recipe

_SAVERS_AND_SPENDERS = (
    "deepspeed",
    "enable_channel_loss",
    "enable_dft_loss",
    "fsdp",
    "freeze_parameters",
    "label_smoothing_factor",
    "loss_type",
    "modules_to_save",
    "packing",
    "padding_free",
    "target_parameters",
    "target_regex",
    "trainable_parameters",
    "use_dora",
    "use_galore",
)
"""Arguments that change what is allocated in ways that the memory model does not follow."""


class Unpredicted(NamedTuple):
    """Why a recipe's memory cannot be told."""

    reason: str


def training_run(
    recipe: Recipe, length: int | None = None, supervised: int | None = None
) -> TrainingRun | Unpredicted:
    """The recipe as the memory model sees it; `length` and `supervised` are in tokens.

    Without `length` it is the recipe's max_length; without `supervised` every token counts.
    """
    swift = recipe.swift
    shape = shape_of(recipe.model.id)
    reasons = _reasons(recipe)
    if shape is None:
        reasons.append(f"{recipe.model.id} is not a dense Qwen3 whose shape is known")
    optimizer = swift.get("optim", "adamw_torch_fused")  # transformers' default
    if optimizer not in get_args(Optimizer):
        reasons.append(f"the memory of optim {optimizer} is not known")
    targets = _targets(swift.get("target_modules", ["all-linear"]))
    if not targets:
        reasons.append("target_modules are not linear layers of Qwen3")
    if length is None and "max_length" not in swift:
        reasons.append("max_length is not set")
    if reasons or shape is None:
        return Unpredicted("; ".join(reasons))
    return TrainingRun(
        shape=shape,
        rank=_number(swift, "lora_rank", 8),
        length=length or _number(swift, "max_length", 0),
        supervised=supervised,
        optimizer=optimizer,  # type: ignore[arg-type]  # is one of them: checked above
        liger=swift.get("use_liger_kernel") is True,
        dropout=float(swift.get("lora_dropout", 0.05)),  # type: ignore[arg-type]  # checked number
        lora_fp32=swift.get("lora_dtype") != "bfloat16",  # fp16 is turned into fp32 too
        accumulation=_number(swift, "gradient_accumulation_steps", 16),
        targets=targets,
        quantized=swift.get("quant_method") == "bnb",
        double_quant=swift.get("bnb_4bit_use_double_quant", True) is True,
    )


def _reasons(recipe: Recipe) -> list[str]:
    swift = recipe.swift
    reasons = []
    if recipe.task != "sft":
        reasons.append(f"task {recipe.task} is not predicted yet, only sft")
    if swift.get("tuner_type", "lora") != "lora":
        reasons.append(f"tuner_type {swift['tuner_type']} is not predicted yet, only lora")
    quantization = swift.get("quant_method"), str(swift.get("quant_bits"))
    if quantization not in ((None, "None"), ("bnb", "4")):
        reasons.append("only bnb in 4 bits and bf16 weights are predicted")
    if swift.get("torch_dtype", "bfloat16") not in ("bfloat16", "float16"):
        reasons.append("only 16-bit weights are predicted")
    if _number(swift, "per_device_train_batch_size", 1) != 1:
        reasons.append("a batch above 1 pads and leaves the flash path; use accumulation")
    if swift.get("gradient_checkpointing", True) is not True:
        reasons.append("only gradient checkpointing is predicted")
    if recipe.launch.processes * recipe.launch.nodes != 1:
        reasons.append("only one process is predicted")
    reasons += [f"{name} is not predicted yet" for name in _SAVERS_AND_SPENDERS if swift.get(name)]
    return reasons


def _targets(modules: Any) -> tuple[str, ...]:
    names = modules if isinstance(modules, list) else [modules]
    if "all-linear" in names:
        return TARGETS
    return tuple(names) if set(names) <= set(TARGETS) else ()


def _number(swift: Any, name: str, default: int) -> int:
    value = swift.get(name, default)
    return value if isinstance(value, int) else default
