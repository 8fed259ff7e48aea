"""Plans a server on one GPU: longest context, parallel requests, and the settings that say so.

`serving_memory` has the formulas. Everything here is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict

from palmswift.errors import InputError, Problem
from palmswift.plan.cards import CONTEXT_MIB, DESKTOP_MIB, DRIVER_MIB, usable_mib
from palmswift.plan.memory import MIB
from palmswift.plan.recipe_run import shape_of_model
from palmswift.plan.serving_memory import (
    SEQUENCES,
    WEIGHTS_OF,
    Backend,
    Served,
    ServedWeights,
    kv_bytes_per_token,
    request_bytes,
    standing_bytes,
)
from palmswift.plan.shapes import Shape
from palmswift.recipes.recipe import Recipe, SwiftValue

_STEP = 64
"""Contexts are multiples of it."""

_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM makes room for (vllm/config/lora.py, MaxLoRARanks)."""


_LLAMA_SLOTS = 64
"""Requests at a time beyond which llama.cpp is not planned for."""


class ServingPlan(BaseModel):
    """What one server takes of a card, and what it can then do. MiB are binary."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    recipe: str
    model: str
    backend: Backend
    weights: ServedWeights
    as_trained: bool
    """Whether the weights are those that the training had: nothing more is lost."""
    basis: Literal["predicted"] = "predicted"
    gpu_mib: int
    usable_mib: int
    """What the server may take, its CUDA context left out."""
    memory_fraction: float | None
    """vLLM's gpu_memory_utilization: what was said, else the largest with which it starts; null:
    the backend takes what it needs."""
    terms_mib: dict[str, int]
    """What is there before the first request."""
    free_mib: int
    """For KV cache and, with transformers, what a request's forward pass takes."""
    kv_bytes_per_token: int
    context: int
    """Tokens of a request, question and answer, that the next figure is for."""
    parallel_requests: int
    """Requests of `context` tokens at a time; further ones wait."""
    max_model_len: int
    """The longest request that the server is started for. With vLLM one such request fits beside
    room for `parallel_requests`; with the others all of them may be so long."""
    longest_context: int
    """Tokens of a request where the server is started for one at a time; a multiple of 64."""
    context_limit: int
    """What the model was made for, or max_model_len."""
    wanted_requests: int
    """Requests of `context` tokens that have to fit at a time."""
    fits: bool
    """Whether they do."""

    @property
    def settings(self) -> dict[str, SwiftValue]:
        """The plan as arguments of `swift deploy`; empty where it does not fit."""
        if not self.fits or self.backend == "llama.cpp":
            return {}
        if self.backend == "transformers":
            return {"max_model_len": self.max_model_len, "max_batch_size": self.parallel_requests}
        return {
            "vllm_gpu_memory_utilization": self.memory_fraction or 0.0,
            "vllm_max_model_len": self.max_model_len,
            "vllm_max_num_seqs": self.parallel_requests,
        }


class ServingConditions(NamedTuple):
    """What a server is planned for, where it is not as the recipe says."""

    gpu_mib: int | None = None
    desktop_mib: int = DESKTOP_MIB
    backend: str | None = None
    weights: str | None = None
    context: int | None = None
    parallel: int | None = None
    """Requests at a time that have to fit; the context is then as long as they leave."""
    free_mib: int | None = None
    """What the card has free now, of which the context comes off; else by the desktop's share."""
    total_mib: int | None = None
    """What CUDA calls the card's memory, of which vLLM takes a fraction."""


class Server(NamedTuple):
    """One server as the planner sees it; made of a recipe, or of what is really started."""

    name: str
    model: str
    shape: Shape
    backend: Backend
    weights: ServedWeights
    as_trained: bool
    rank: int
    adapters: int
    settings: Mapping[str, Any]
    context: int


def plan_serving(recipe: Recipe, conditions: ServingConditions) -> ServingPlan:
    """The plan of serving what `recipe` trains. InputError: what it cannot be told for."""
    backend = conditions.backend or recipe.deploy.backend
    settings: dict[str, Any] = {**recipe.swift, **recipe.deploy.swift}
    trained = trained_weights(recipe.model.id, settings, merged=recipe.export.merge)
    weights = conditions.weights or ("q4_k_m" if backend == "llama.cpp" else trained)
    shape = shape_of_model(recipe.model)
    problems = _unknown(backend, weights)
    if shape is None:
        what = "is not a dense Qwen3 whose shape is known"
        problems.append(Problem(what, recipe.model.id, "name a folder with a Qwen3 config.json"))
    if problems or shape is None:
        raise InputError(f"the serving of {recipe.name} cannot be predicted", problems)
    lora = settings.get("tuner_type", "lora") == "lora" and not recipe.export.merge
    as_trained = weights == trained
    server = Server(
        name=recipe.name,
        model=recipe.model.id,
        shape=shape,
        backend=backend,  # type: ignore[arg-type]  # _unknown has looked at it
        weights=weights,  # type: ignore[arg-type]
        as_trained=as_trained,
        # other weights are exported, with the adapter merged into them
        rank=(_whole(settings, "lora_rank") or 8) if lora and as_trained else 0,
        adapters=1,
        settings=settings,
        context=trained_context(recipe),
    )
    gpu_mib = recipe.budget.gpu_mib if conditions.gpu_mib is None else conditions.gpu_mib
    return plan_server(server, conditions._replace(gpu_mib=gpu_mib))


def plan_server(server: Server, conditions: ServingConditions) -> ServingPlan:
    """The plan of one server on a card of `conditions.gpu_mib`."""
    served = _served(server)
    usable, fraction = _usable(server, conditions)
    limit = _whole(server.settings, "vllm_max_model_len")
    limit = limit or _whole(server.settings, "max_model_len") or server.shape.positions
    room = _Room(served, usable * MIB, limit)
    context = min(conditions.context or server.context, limit)
    if conditions.parallel is None:
        most = _most_requests(server)
        parallel = _largest(most, lambda number: room.holds(number, context))
    else:
        if conditions.context is None:
            context = room.longest(conditions.parallel) or context
        parallel = conditions.parallel if room.holds(conditions.parallel, context) else 0
    terms = standing_bytes(served, max(parallel, 1))
    return ServingPlan(
        recipe=server.name,
        model=server.model,
        backend=server.backend,
        weights=server.weights,
        as_trained=server.as_trained,
        gpu_mib=conditions.gpu_mib or 0,
        usable_mib=usable,
        memory_fraction=fraction,
        terms_mib={name: round(size / MIB) for name, size in terms.items() if size},
        free_mib=max(0, usable - sum(terms.values()) // MIB),
        kv_bytes_per_token=kv_bytes_per_token(server.shape),
        context=context,
        parallel_requests=parallel,
        max_model_len=max(room.made_for(parallel), context) if parallel else 0,
        longest_context=room.longest(1),
        context_limit=limit,
        wanted_requests=conditions.parallel or 1,
        fits=parallel >= 1,
    )


class _Room(NamedTuple):
    """What a server with so much memory can hold."""

    served: Served
    bytes: int
    limit: int

    def holds(self, requests: int, tokens: int) -> bool:
        """Whether so many requests of so many tokens fit at a time."""
        standing = sum(standing_bytes(self.served, requests).values())
        return standing + request_bytes(self.served, requests, tokens) <= self.bytes

    def longest(self, requests: int) -> int:
        """The longest context of so many requests at a time; 0: none."""
        return _longest(self.limit, lambda tokens: self.holds(requests, tokens))

    def made_for(self, requests: int) -> int:
        """The longest request of a server that is started for so many at a time.

        In vLLM it may be as long as the whole cache: others wait meanwhile, none is refused.
        """
        if self.served.backend != "vllm":
            return self.longest(requests)
        spare = self.bytes - sum(standing_bytes(self.served, requests).values())
        return _longest(self.limit, lambda tokens: request_bytes(self.served, 1, tokens) <= spare)


def trained_weights(model: str, settings: Mapping[str, Any], *, merged: bool = False) -> str:
    """How the weights are that a training with these arguments has: what serves it as trained."""
    if model.lower().endswith(("-awq", "-gptq", "-fp8")):
        return model.lower().rpartition("-")[2]
    if settings.get("quant_method") == "bnb" and not merged:
        return "bnb-4bit" if str(settings.get("quant_bits")) == "4" else "bnb-8bit"
    return "bf16"


def trained_context(recipe: Recipe) -> int:
    """A question as long as a trained row, and the longest answer that is asked for."""
    length = recipe.swift.get("max_length")
    return (length if isinstance(length, int) else 1024) + recipe.eval.max_tokens


def _unknown(backend: str, weights: str) -> list[Problem]:
    if backend not in get_args(Backend):
        known = ", ".join(get_args(Backend))
        found = [Problem(f"backend {backend} is not predicted", "--backend", known)]
        if weights not in get_args(ServedWeights):
            known = ", ".join(get_args(ServedWeights))
            found.append(Problem(f"weights {weights} are not predicted", "--weights", known))
        return found
    possible = WEIGHTS_OF[backend]  # type: ignore[index]  # it is one of them
    if weights in possible:
        return []
    what = f"{backend} does not compute with weights {weights}"
    return [Problem(what, "--weights", ", ".join(possible))]


def _served(server: Server) -> Served:
    rank = server.rank
    if rank and server.backend == "vllm":
        rank = next((room for room in _LORA_RANKS if room >= rank), rank)
    eager = server.settings.get("vllm_enforce_eager") is True
    return Served(server.shape, server.backend, server.weights, rank, server.adapters, eager)


def _usable(server: Server, conditions: ServingConditions) -> tuple[int, float | None]:
    """MiB for the server beside its CUDA context, and the fraction of the card vLLM is given.

    vLLM takes a fraction of what CUDA calls the card's memory, and does not start when less than
    that is free once its context is there (vllm/v1/worker/utils.py, request_memory).
    """
    gpu_mib, free = conditions.gpu_mib or 0, conditions.free_mib
    if server.backend != "vllm":
        if free is not None:
            return usable_mib(free, desktop_mib=0), None
        return usable_mib(gpu_mib, desktop_mib=conditions.desktop_mib), None
    total = conditions.total_mib or max(1, gpu_mib - DRIVER_MIB)
    left = total - conditions.desktop_mib if free is None else free
    said = server.settings.get("vllm_gpu_memory_utilization")
    startable = floor((left - CONTEXT_MIB) / total * 100) / 100
    fraction = float(said) if isinstance(said, int | float) else max(0.0, min(startable, 0.99))
    return int(total * fraction), fraction


def _most_requests(server: Server) -> int:
    if server.backend == "vllm":
        return _whole(server.settings, "vllm_max_num_seqs") or SEQUENCES
    if server.backend == "llama.cpp":
        return _LLAMA_SLOTS
    return _whole(server.settings, "max_batch_size") or 8


def _largest(most: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to `most` for which it holds; 0: for none. It holds for all smaller."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _longest(limit: int, holds: Callable[[int], bool]) -> int:
    """The longest context for which it holds: `limit`, or a multiple of 64 below it."""
    if holds(limit):
        return limit
    return _STEP * _largest(limit // _STEP, lambda steps: holds(steps * _STEP))


def _whole(settings: Mapping[str, Any], name: str) -> int:
    value = settings.get(name)
    return value if isinstance(value, int) else 0
