"""Reads from a recipe what the memory of its training depends on, or why that is not known."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from palmswift.plan.memory import TARGETS, Evaluation, TrainingRun
from palmswift.plan.optimizers import Optimizer
from palmswift.plan.shapes import Shape, shape_of
from palmswift.recipes.recipe import ModelSource, Recipe

TILE_VARIABLE = "PALMSWIFT_TILED_MLP_TOKENS"
"""Where the plugin tiled_mlp is told how many tokens it takes at a time."""

DEFAULT_TILE = 1024

_KNOWN = (
    *("embedding_on_cpu", "checkpoint_offload", "tiled_mlp", "quantised_head"),
    *("memory_log", "gpu_cap"),
)
"""Shipped plugins, of which the last two change nothing of what is allocated."""

_SAVERS_AND_SPENDERS = (
    "auto_find_batch_size",
    "enable_channel_loss",
    "enable_dft_loss",
    "freeze_parameters",
    "label_smoothing_factor",
    "loss_type",
    "modules_to_save",
    "packing",
    "padding_free",
    "target_parameters",
    "target_regex",
    "torch_compile",
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
    shape = shape_of_model(recipe.model)
    reasons = _reasons(recipe)
    if "embedding_on_cpu" in recipe.plugins and (
        swift.get("tuner_type") == "full" or (shape is not None and shape.tied)
    ):
        reasons.append("embedding_on_cpu stops where the embedding is trained, or is the head too")
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
    full = swift.get("tuner_type", "lora") == "full"
    rows = 2 if recipe.task == "dpo" else 1  # chosen and rejected are one batch
    return TrainingRun(
        shape=shape,
        rank=0 if full else _number(swift, "lora_rank", 8),
        length=length or _number(swift, "max_length", 0),
        # told to keep all logits, it keeps them for tokens without a loss too
        supervised=None if swift.get("use_logits_to_keep") is False else supervised,
        optimizer=optimizer,  # type: ignore[arg-type]  # is one of them: checked above
        liger=swift.get("use_liger_kernel") is True,
        # without an adapter there is nothing to drop
        dropout=0.0 if full else float(swift.get("lora_dropout", 0.05)),  # type: ignore[arg-type]  # checked number
        lora_fp32=swift.get("lora_dtype") != "bfloat16",  # fp16 is turned into fp32 too
        accumulation=_number(swift, "gradient_accumulation_steps", 16),
        targets=targets,
        quantized=swift.get("quant_method") == "bnb",
        double_quant=swift.get("bnb_4bit_use_double_quant", True) is True,
        quant_bits=8 if str(swift.get("quant_bits")) == "8" else 4,
        batch=rows * _number(swift, "per_device_train_batch_size", 1),
        preference=recipe.task == "dpo",
        full=full,
        weights_fp32=swift.get("torch_dtype") == "float32",
        embedding_on_cpu="embedding_on_cpu" in recipe.plugins,
        checkpoint_offload="checkpoint_offload" in recipe.plugins,
        tiled_mlp=_tile(recipe),
        quantised_head="nf4" if "quantised_head" in recipe.plugins else None,
        evaluation=_evaluation(recipe, rows),
    )


def shape_of_model(model: ModelSource) -> Shape | None:
    """The shape of a recipe's model: made on the spot, in a folder, in a hub's cache, or known."""
    made = model.embedded
    if made is not None:
        return Shape(
            hidden=made.hidden_size,
            layers=made.num_hidden_layers,
            query_heads=made.num_attention_heads,
            kv_heads=made.num_key_value_heads,
            head_dim=made.head_dim,
            intermediate=made.intermediate_size,
            vocab=made.vocab_size,
            tied=True,
        )
    return shape_of(model.id)


def _reasons(recipe: Recipe) -> list[str]:
    swift = recipe.swift
    tuner = swift.get("tuner_type", "lora")
    reasons = []
    if recipe.task not in ("sft", "pt", "dpo"):
        reasons.append(f"task {recipe.task} is not predicted, only sft, pt and dpo")
    if recipe.task == "dpo" and (tuner == "full" or swift.get("ref_model") is not None):
        reasons.append("dpo with a reference model of its own is not predicted, only an adapter's")
    if tuner not in ("lora", "full"):
        reasons.append(f"tuner_type {tuner} is not predicted, only lora and full")
    quantization = swift.get("quant_method"), str(swift.get("quant_bits"))
    if quantization not in ((None, "None"), ("bnb", "4"), ("bnb", "8")):
        reasons.append("only bnb in 4 or 8 bits and unquantised weights are predicted")
    dtype = swift.get("torch_dtype", "bfloat16")
    if dtype not in ("bfloat16", "float16") and (dtype, tuner) != ("float32", "full"):
        reasons.append("only 16-bit weights are predicted, and fp32 ones of full tuning")
    if swift.get("gradient_checkpointing", True) is not True:
        reasons.append("only gradient checkpointing is predicted")
    attention = str(swift.get("attn_impl", "sdpa"))
    if attention not in ("None", "sdpa") and not attention.startswith("flash_att"):
        reasons.append(f"attn_impl {attention} is not predicted, only sdpa and flash attention")
    if swift.get("tuner_backend", "peft") != "peft":
        reasons.append(f"tuner_backend {swift['tuner_backend']} is not predicted, only peft")
    if _number(swift, "sequence_parallel_size", 1) != 1:
        reasons.append("sequence_parallel_size above 1 is not predicted")
    if swift.get("predict_with_generate") is True:
        reasons.append("predict_with_generate is not predicted")
    if swift.get("eval_metric") is not None and "eval_accumulation_steps" not in swift:
        reasons.append(
            "eval_metric keeps every row's logits on the GPU; eval_accumulation_steps: 1 does not"
        )
    reasons += _launch_reasons(recipe)
    reasons += [f"{name} is not predicted yet" for name in _SAVERS_AND_SPENDERS if swift.get(name)]
    reasons += [f"plugin {name} is not predicted" for name in recipe.plugins if name not in _KNOWN]
    return reasons


def _launch_reasons(recipe: Recipe) -> list[str]:
    """Launches of which no memory has been measured, so none is promised."""
    launch = recipe.launch
    reasons = []
    if launch.engine != "swift":
        reasons.append(f"engine {launch.engine} is not predicted, only ms-swift's own")
    if launch.device != "cuda":
        reasons.append(f"device {launch.device} is not predicted, only CUDA cards")
    if launch.strategy != "ddp":
        reasons.append(
            f"strategy {launch.strategy} over {launch.world} processes is not predicted: no card's"
            " share has been measured"
        )
    elif launch.world > 1:
        reasons.append(
            f"{launch.world} processes are not predicted: each card holds what one process does,"
            " and DDP's second copy of the gradients, which has not been measured"
        )
    return reasons


def _evaluation(recipe: Recipe, rows: int) -> Evaluation | None:
    swift = recipe.swift
    if swift.get("eval_strategy", "no") == "no":
        return None
    return Evaluation(
        batch=rows * _number(swift, "per_device_eval_batch_size", 1),
        # Without a metric the Trainer asks for the loss alone, whatever prediction_loss_only says.
        keeps_logits=swift.get("eval_metric") is not None
        and swift.get("prediction_loss_only") is not True,
        accumulated=_number(swift, "eval_accumulation_steps", 1),
    )


def _tile(recipe: Recipe) -> int | None:
    if "tiled_mlp" not in recipe.plugins:
        return None
    said = recipe.env.get(TILE_VARIABLE, "")
    return int(said) if said.isdecimal() and int(said) > 0 else DEFAULT_TILE


def _targets(modules: Any) -> tuple[str, ...]:
    names = modules if isinstance(modules, list) else [modules]
    if "all-linear" in names:
        return TARGETS
    return tuple(names) if set(names) <= set(TARGETS) else ()


def _number(swift: Any, name: str, default: int) -> int:
    value = swift.get(name, default)
    return value if isinstance(value, int) else default
