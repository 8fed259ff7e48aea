"""What is measured: recipes with changes, as a grid, and how each is cut down to three steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from palmswift.recipes.load import load_recipe
from palmswift.recipes.recipe import ModelSource, Recipe

STEPS = 3
"""The highest step is the second or a later one, when optimizer state is there."""

ACCUMULATION = 2
"""Gradients wait from the first micro step on, as with any number above 1."""

_UNMEASURED = (
    *("num_train_epochs", "eval_strategy", "eval_steps", "save_strategy", "save_steps"),
    *("save_total_limit", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
)


class Case(NamedTuple):
    """One training that is measured."""

    recipe: str
    length: int
    supervised: int
    changes: tuple[str, ...] = ()
    """As for `--set`."""
    cap_mib: int | None = None
    """What PyTorch may reserve; None: all of the card."""


def grid(recipe: str, lengths: Sequence[int], cap_mib: int | None = None) -> list[Case]:
    """Ranks, lengths, Liger and the adapter's type; half of the tokens are supervised."""
    settings = itertools.product((8, 16, 64), lengths, (True, False), ("bfloat16", "float32"))
    return [
        Case(
            recipe,
            length,
            supervised=length // 2,
            changes=(
                f"swift.lora_rank={rank}",
                f"swift.use_liger_kernel={str(liger).lower()}",
                f"swift.lora_dtype={dtype}",
            ),
            cap_mib=cap_mib,
        )
        for rank, length, liger, dtype in settings
    ]


def measured_recipe(case: Case, model: Path) -> Recipe:
    """The recipe over the model in `model`, three steps long, with the plugins that measure."""
    recipe = load_recipe(case.recipe, case.changes).recipe
    kept = {name: value for name, value in recipe.swift.items() if name not in _UNMEASURED}
    swift = {
        **kept,
        "max_steps": STEPS,
        "gradient_accumulation_steps": ACCUMULATION,
        "per_device_train_batch_size": 1,
        "max_length": case.length,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": ["none"],
    }
    plugins = [*recipe.plugins, "memory_log"]
    env = dict(recipe.env)
    if case.cap_mib is not None:
        plugins.append("gpu_cap")
        env["PALMSWIFT_GPU_CAP_MIB"] = str(case.cap_mib)
    source = ModelSource(id=str(model), source="local")
    update = {"swift": swift, "plugins": plugins, "env": env, "model": source}
    return recipe.model_copy(update=update)


def longest(fits: Callable[[int], bool], low: int, high: int, step: int = 64) -> int:
    """The longest multiple of `step` in `low` to `high` for which `fits` holds; 0: not even `low`.

    Each length is asked once at most; `fits` has to hold below the one that is looked for.
    """
    first, last = -(-low // step), high // step
    best = 0
    while first <= last:
        middle = (first + last + 1) // 2 if best else first
        if fits(middle * step):
            best, first = middle, middle + 1
        elif not best:
            return 0
        else:
            last = middle - 1
    return best * step
