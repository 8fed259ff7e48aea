"""Predicts what a served model takes: weights, KV cache, longest context, parallel requests.

Closed forms of what transformers 5.19 (ms-swift's own engine) and vLLM keep for a dense Qwen3 on
one GPU. Weights and KV cache are exact; what kernels, sampling and CUDA graphs take is an estimate.
"""

from __future__ import annotations

from math import floor
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict

from palmswift.errors import InputError, Problem
from palmswift.plan.cards import CONTEXT_MIB, DESKTOP_MIB, FRAGMENTATION
from palmswift.plan.memory import MIB, TARGETS
from palmswift.plan.recipe_run import shape_of_model
from palmswift.plan.shapes import Shape
from palmswift.plan.weights import dequantised_bytes, weights_of
from palmswift.recipes.recipe import Recipe

Backend = Literal["transformers", "vllm"]
ServedWeights = Literal["bf16", "bnb-4bit", "awq"]

_AWQ_GROUP = 128
"""Weights that share a 16-bit scale and a 4-bit zero point (AutoAWQ's and llm-compressor's)."""

_BATCHED_TOKENS = 2048
"""Tokens that vLLM takes through the model at a time (its max_num_batched_tokens for a server)."""

_SEQUENCES = 256
"""vLLM's max_num_seqs, for which it tries the sampler when it starts."""

_GRAPHS_MIB = 400
"""vLLM's CUDA graphs (an estimate); none with vllm_enforce_eager."""


class ServingPlan(BaseModel):
    """What one server takes of a card, and what it can then do. MiB are binary."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    recipe: str
    model: str
    backend: Backend
    weights: ServedWeights
    basis: Literal["predicted"] = "predicted"
    gpu_mib: int
    usable_mib: int
    """What the server may take, its CUDA context left out."""
    memory_fraction: float | None
    """vllm_gpu_memory_utilization: the recipe's, else the largest with which vLLM starts beside a
    desktop; null: the transformers backend takes what it needs."""
    terms_mib: dict[str, int]
    """What is there before the first request."""
    free_mib: int
    """For KV cache and, with transformers, what a request's forward pass takes."""
    kv_bytes_per_token: int
    bytes_per_token: int
    """KV cache and forward pass of a token of a request's context."""
    context: int
    """Tokens of a request, question and answer, that the next figure is for."""
    parallel_requests: int
    """Requests of `context` tokens at a time; vLLM lets more wait."""
    longest_context: int
    """Tokens of one request alone; a multiple of 64, and no more than `context_limit`."""
    context_limit: int
    """What the model was made for, or max_model_len."""
    fits: bool
    """Whether one request of `context` tokens can be served."""


class ServingConditions(NamedTuple):
    """What a recipe's server is planned for, where it is not as the recipe says."""

    gpu_mib: int | None = None
    desktop_mib: int = DESKTOP_MIB
    backend: str | None = None
    weights: str | None = None
    context: int | None = None


def plan_serving(recipe: Recipe, conditions: ServingConditions) -> ServingPlan:
    """The plan of serving what `recipe` trains. InputError: what it cannot be told for."""
    backend = conditions.backend or recipe.deploy.backend
    settings: dict[str, Any] = {**recipe.swift, **recipe.deploy.swift}
    weights = conditions.weights or _weights_kind(recipe, settings)
    shape = shape_of_model(recipe.model)
    problems = []
    if backend not in get_args(Backend):
        problems.append(Problem(f"backend {backend} is not predicted", "--backend", "vllm"))
    if weights not in get_args(ServedWeights):
        known = ", ".join(get_args(ServedWeights))
        problems.append(Problem(f"weights {weights} are not predicted", "--weights", known))
    if shape is None:
        what = "is not a dense Qwen3 whose shape is known"
        problems.append(Problem(what, recipe.model.id, "name a folder with a Qwen3 config.json"))
    if problems or shape is None:
        raise InputError(f"the serving of {recipe.name} cannot be predicted", problems)
    server = _Server(shape, backend, weights, settings)  # type: ignore[arg-type]  # checked above
    gpu_mib = recipe.budget.gpu_mib if conditions.gpu_mib is None else conditions.gpu_mib
    usable, fraction = _usable(server, gpu_mib, conditions.desktop_mib)
    terms = _standing(server, _adapter_numbers(recipe, shape, settings))
    free = max(0, usable * MIB - sum(terms.values()))
    limit = _whole(settings, "vllm_max_model_len") or _whole(settings, "max_model_len")
    limit = limit or shape.positions
    each = kv_bytes_per_token(shape) + _forward_bytes(server)
    context = min(conditions.context or _context(recipe), limit)
    parallel = free // (each * context)
    return ServingPlan(
        recipe=recipe.name,
        model=recipe.model.id,
        backend=server.backend,
        weights=server.weights,
        gpu_mib=gpu_mib,
        usable_mib=usable,
        memory_fraction=fraction,
        terms_mib={name: round(size / MIB) for name, size in terms.items() if size},
        free_mib=free // MIB,
        kv_bytes_per_token=kv_bytes_per_token(shape),
        bytes_per_token=each,
        context=context,
        parallel_requests=min(parallel, _most_requests(server)),
        longest_context=min(free // each // 64 * 64, limit),
        context_limit=limit,
        fits=parallel >= 1,
    )


def kv_bytes_per_token(shape: Shape) -> int:
    """Keys and values of one token in all layers, in 16 bits."""
    return 2 * 2 * shape.key * shape.layers


def served_weight_bytes(shape: Shape, weights: ServedWeights) -> int:
    """The model's weights on the card; embedding and head are 16-bit in all three."""
    if weights == "bf16":
        return weights_of(shape, "bf16").total
    four_bit = weights_of(shape, "nf4")
    if weights == "bnb-4bit":
        return four_bit.total
    linear = shape.linear_weights
    awq = linear // 2 + linear // _AWQ_GROUP * 2 + linear // _AWQ_GROUP // 2
    return four_bit.total - four_bit.linear_layers + awq


def serving_text(plan: ServingPlan) -> str:
    """The plan as lines of text."""
    kv = plan.kv_bytes_per_token / 1024
    lines = [
        f"{plan.recipe}: {plan.model} served by {plan.backend}, weights {plan.weights}",
        "",
        "before the first request (MiB, predicted)",
        *(f"  {name:<22}{size:>7}" for name, size in plan.terms_mib.items()),
        "",
        f"card {plan.gpu_mib} MiB, usable {plan.usable_mib}; {plan.free_mib} left for requests",
        f"KV cache {kv:.0f} KiB a token, {plan.bytes_per_token / 1024:.0f} with the forward pass",
    ]
    if plan.memory_fraction is not None:
        lines.append(f"memory fraction: vllm_gpu_memory_utilization {plan.memory_fraction:.2f}")
    lines += [
        f"longest context: {plan.longest_context:,} tokens (the limit is {plan.context_limit:,})",
        f"parallel requests of {plan.context:,} tokens: {plan.parallel_requests}",
        "fits" if plan.fits else "DOES NOT FIT: not one request of that length",
    ]
    return "\n".join(lines)


class _Server(NamedTuple):
    shape: Shape
    backend: Backend
    weights: ServedWeights
    settings: dict[str, Any]


def _weights_kind(recipe: Recipe, settings: dict[str, Any]) -> str:
    if recipe.model.id.lower().endswith("-awq"):
        return "awq"
    if settings.get("quant_method") == "bnb" and not recipe.export.merge:
        return "bnb-4bit" if str(settings.get("quant_bits")) == "4" else "bnb-8bit"
    return "bf16"


def _usable(server: _Server, gpu_mib: int, desktop_mib: int) -> tuple[int, float | None]:
    """MiB for PyTorch, and the fraction of the card that vLLM is given.

    vLLM counts the context in its share, and does not start when less than that share is free.
    """
    if server.backend == "transformers":
        spare = gpu_mib - CONTEXT_MIB - desktop_mib
        return max(0, int(spare / (1 + FRAGMENTATION))), None
    said = server.settings.get("vllm_gpu_memory_utilization")
    startable = floor((gpu_mib - CONTEXT_MIB - desktop_mib) / max(gpu_mib, 1) * 100) / 100
    fraction = float(said) if isinstance(said, int | float) else max(0.0, startable)
    return max(0, int(gpu_mib * fraction) - CONTEXT_MIB), fraction


def _standing(server: _Server, adapter: int) -> dict[str, int]:
    """Bytes before the first request."""
    shape, four_bit = server.shape, server.weights != "bf16"
    terms = {
        "weights": served_weight_bytes(shape, server.weights),
        # PEFT keeps it in fp32; vLLM has a 16-bit slot of the largest rank for it
        "adapter": adapter * (4 if server.backend == "transformers" else 2),
        "workspace": 8519680,  # cuBLAS, one thread
        "dequantised_weight": dequantised_bytes(shape, 1) if four_bit else 0,
    }
    if server.backend == "vllm":
        terms["forward_pass"] = _BATCHED_TOKENS * _layer_bytes(shape)
        sequences = _whole(server.settings, "vllm_max_num_seqs") or _SEQUENCES
        terms["sampler"] = sequences * shape.vocab * 10  # 16-bit and fp32 logits, probabilities
        eager = server.settings.get("vllm_enforce_eager") is True
        terms["cuda_graphs"] = 0 if eager else _GRAPHS_MIB * MIB
    return terms


def _forward_bytes(server: _Server) -> int:
    """What a token of a prompt takes while it is read; vLLM reads in parts, which are counted."""
    if server.backend == "vllm":
        return 0
    # the padded batch has keys and values of a layer repeated for each query head
    return _layer_bytes(server.shape) + 4 * server.shape.query


def _layer_bytes(shape: Shape) -> int:
    return 4 * shape.intermediate + 6 * shape.hidden


def _adapter_numbers(recipe: Recipe, shape: Shape, settings: dict[str, Any]) -> int:
    if settings.get("tuner_type", "lora") != "lora" or recipe.export.merge:
        return 0
    rank = _whole(settings, "lora_rank") or 8
    linears = (shape.linears[name] for name in TARGETS)
    return shape.layers * rank * sum(linear.inputs + linear.outputs for linear in linears)


def _context(recipe: Recipe) -> int:
    """A question as long as a trained row, and the longest answer that is asked for."""
    length = recipe.swift.get("max_length")
    return (length if isinstance(length, int) else 1024) + recipe.eval.max_tokens


def _most_requests(server: _Server) -> int:
    if server.backend == "vllm":
        return _whole(server.settings, "vllm_max_num_seqs") or _SEQUENCES
    return _whole(server.settings, "max_batch_size") or 8


def _whole(settings: dict[str, Any], name: str) -> int:
    value = settings.get(name)
    return value if isinstance(value, int) else 0
