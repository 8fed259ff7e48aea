"""A server's settings for the card that is really there: the planner's context and requests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from palmswift.deploy.adapters import adapter_rank
from palmswift.deploy.spec import ServerSpec
from palmswift.deploy.vllm_server import adapters_of
from palmswift.errors import InputError
from palmswift.launchers.plugin_files import plugin_path
from palmswift.plan.serving import (
    Server,
    ServingConditions,
    ServingPlan,
    plan_server,
    trained_context,
    trained_weights,
)
from palmswift.plan.serving_memory import WEIGHTS_OF
from palmswift.plan.serving_text import capacity
from palmswift.plan.shapes import shape_of
from palmswift.recipes.recipe import Recipe
from palmswift.setup.gpus import Gpu, ask_gpus

_CONTEXT = 2048
"""Tokens of a request where no recipe says how long its rows and answers are."""

_QUANTISED = {"awq": "awq", "gptq": "gptq", "bitsandbytes": "bnb", "fp8": "fp8"}
"""quant_method of a config.json, and what the planner calls it."""


def fitted(
    spec: ServerSpec,
    recipe: Recipe | None,
    *,
    asked: Iterable[str] = (),
    note: Callable[[str], object] = lambda line: None,
) -> ServerSpec:
    """The spec with the planner's numbers for this machine's card, as it is free now.

    Without a card, and for a model or backend that is not predicted, the spec as it is. What a
    user `asked` for by name stays. `InputError` when not one short request would fit, unless
    memory was asked for by name.
    """
    spec = _held_to_its_length(spec)
    card = _card(spec)
    server = None if card is None else _server(spec, recipe)
    if card is None or server is None:
        return spec
    conditions = ServingConditions(
        gpu_mib=card.total_mib, desktop_mib=0, free_mib=card.free_mib, total_mib=card.cuda_mib
    )
    plan = plan_server(server, conditions)
    wanted = plan
    if not plan.fits and plan.longest_context:
        plan = plan_server(server, conditions._replace(context=plan.longest_context))
    asked = set(asked)
    if not plan.fits:
        _refuse(plan, card, by_name=bool(asked & set(_MEMORY)), note=note)
        return spec
    settings = {name: value for name, value in plan.settings.items() if name not in asked}
    shorter = "" if wanted.fits else f" (trained for {wanted.context:,})"
    note(
        f"planned for {card.name} with {card.free_mib:,} MiB free: {capacity(plan)}{shorter}, "
        f"and up to {plan.max_model_len:,} tokens; predicted"
    )
    return _held_to_its_length(spec.model_copy(update={"swift": {**spec.swift, **settings}}))


def planned(spec: ServerSpec, recipe: Recipe) -> ServerSpec:
    """The spec with the planner's numbers for the card that `recipe` is made for, no desktop on it.

    What the spec says stays. The spec as it is where nothing is predicted, or nothing fits.
    """
    server = _server(spec, recipe) if recipe.needs_gpu else None
    if server is None:
        return spec
    card = ServingConditions(gpu_mib=recipe.budget.gpu_mib, desktop_mib=0)
    return spec.model_copy(update={"swift": {**plan_server(server, card).settings, **spec.swift}})


def _held_to_its_length(spec: ServerSpec) -> ServerSpec:
    """The spec whose `max_model_len` bounds requests with ms-swift's own engine too.

    Of itself it only writes the number into the model's config (ms-swift 4.6.0).
    """
    if "max_model_len" not in spec.swift or spec.backend != "transformers":
        return spec
    plugin = str(plugin_path("served_length"))
    others = spec.swift.get("external_plugins", [])
    names = [*map(str, others)] if isinstance(others, list) else [str(others)]
    if plugin in names:
        return spec
    return spec.model_copy(update={"swift": {**spec.swift, "external_plugins": [*names, plugin]}})


_MEMORY = ("vllm_gpu_memory_utilization", "vllm_max_model_len", "max_model_len", "max_batch_size")
"""Settings by which a user says that they know better."""


def _refuse(plan: ServingPlan, card: Gpu, *, by_name: bool, note: Callable[[str], object]) -> None:
    needed = sum(plan.terms_mib.values())
    what = (
        f"{plan.recipe} does not fit: {needed:,} MiB before the first request (predicted), and "
        f"{card.name} has {card.free_mib:,} MiB free of {card.total_mib:,}"
    )
    if by_name:
        note(f"{what}; started all the same, since its memory was asked for by name")
        return
    remedy = (
        "close what uses the card (nvidia-smi lists it), or serve it in fewer bits: "
        "python launchers/export.py --help; --set max_model_len=N starts it all the same"
    )
    raise InputError(what, remedy=remedy)


def _card(spec: ServerSpec) -> Gpu | None:
    """The card that the server will use; None: none, or one whose memory is not told."""
    gpus = ask_gpus().gpus
    visible = spec.env.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    first = "0" if visible is None else visible.split(",")[0].strip()
    if not first.isdigit() or int(first) >= len(gpus):
        return None
    card = gpus[int(first)]
    return None if card.free_mib is None or card.total_mib is None else card


def _server(spec: ServerSpec, recipe: Recipe | None) -> Server | None:
    """The spec as the planner sees it; None: it does not know the model or the backend."""
    name, wanted = ("vllm" if spec.server == "vllm" else spec.backend), _weights(spec)
    known = [(engine, each) for engine, kinds in WEIGHTS_OF.items() for each in kinds]
    found = next((pair for pair in known if pair == (name, wanted)), None)
    shape = shape_of(spec.model)
    if found is None or shape is None:
        return None
    backend, kind = found
    adapters = [*adapters_of(spec).values()]
    return Server(
        name=spec.name,
        model=spec.model,
        shape=shape,
        backend=backend,
        weights=kind,
        as_trained=True,
        rank=max(map(adapter_rank, adapters), default=0),
        adapters=len(adapters),
        settings=spec.swift,
        context=_CONTEXT if recipe is None else trained_context(recipe),
    )


def _weights(spec: ServerSpec) -> str:
    """How the weights are on the card: as the model folder has them, else as they are loaded."""
    quantised = _quantisation(Path(spec.model) / "config.json")
    method = _QUANTISED.get(str(quantised.get("quant_method", "")))
    if method == "bnb":
        return "bnb-8bit" if quantised.get("load_in_8bit") else "bnb-4bit"
    if quantised:
        return method or "unknown"
    return trained_weights(spec.model, spec.swift)


def _quantisation(config: Path) -> dict[str, Any]:
    try:
        found = json.loads(config.read_text(encoding="utf-8")).get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}
