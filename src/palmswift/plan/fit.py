"""Says whether a recipe fits a GPU, by how much, and how long its rows may be."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from palmswift.plan.memory import MIB, Peak, TrainingRun, predict
from palmswift.plan.recipe_run import Unpredicted, training_run
from palmswift.recipes.recipe import Recipe

CONTEXT_MIB = 500
"""What the CUDA context and the desktop take of a card before PyTorch gets any."""

FRAGMENTATION = 0.02
"""What the caching allocator reserves beyond what is allocated (2 to 4 %, less with
expandable segments)."""

_LENGTH_STEP = 64
_LONGEST = 131072


class Plan(BaseModel):
    """The prediction for one recipe on one card; `plan.json` of a run. MiB are binary."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    recipe: str
    device: Literal["cpu", "gpu"]
    basis: Literal["predicted"] = "predicted"
    fits: bool | None
    """None: it cannot be predicted."""
    remark: str = ""
    model: str
    gpu_mib: int
    usable_mib: int = 0
    """What PyTorch can allocate: the card less CONTEXT_MIB and fragmentation."""
    length: int = 0
    supervised: int | None = None
    """Most tokens of a row that have a loss; null: all, the worst case."""
    peak_mib: int = 0
    limiting_phase: str = ""
    longest_length: int = 0
    """Longest row in tokens that fits, a multiple of 64, in the same proportion supervised."""
    measured_peak_mib: int | None = None
    phases_mib: dict[str, int] = Field(default_factory=dict)
    """Total at the height of each phase of a training step."""
    terms_mib: dict[str, dict[str, int]] = Field(default_factory=dict)
    """What each total is made of: `standing` is there all along."""


def plan_recipe(
    recipe: Recipe,
    *,
    gpu_mib: int | None = None,
    length: int | None = None,
    supervised: int | None = None,
) -> Plan:
    """The plan of `recipe` on a card of `gpu_mib` (its budget's when None), rows of `length`."""
    card = recipe.budget.gpu_mib if gpu_mib is None else gpu_mib
    if not recipe.needs_gpu:
        remark = "runs on the CPU: no GPU memory is needed"
        return Plan(
            recipe=recipe.name,
            device="cpu",
            fits=True,
            remark=remark,
            model=recipe.model.id,
            gpu_mib=0,
        )
    run = training_run(recipe, length, supervised)
    if isinstance(run, Unpredicted):
        return Plan(
            recipe=recipe.name,
            device="gpu",
            fits=None,
            remark=run.reason,
            model=recipe.model.id,
            gpu_mib=card,
        )
    peak = predict(run)
    usable = usable_mib(card)
    return Plan(
        recipe=recipe.name,
        device="gpu",
        fits=peak.bytes <= usable * MIB,
        model=recipe.model.id,
        gpu_mib=card,
        usable_mib=usable,
        length=run.length,
        supervised=run.supervised,
        peak_mib=_mib(peak.bytes),
        limiting_phase=peak.limiting,
        longest_length=longest_length(run, usable),
        measured_peak_mib=recipe.budget.measured_peak_mib,
        phases_mib={phase: _mib(peak.total(phase)) for phase in peak.phases},
        terms_mib=_terms(peak),
    )


def usable_mib(gpu_mib: int) -> int:
    """MiB of a card that may be allocated: without the context, and with room to fragment."""
    return max(0, int((gpu_mib - CONTEXT_MIB) / (1 + FRAGMENTATION)))


def longest_length(run: TrainingRun, usable: int) -> int:
    """Longest row in tokens, a multiple of 64, whose step stays within `usable` MiB; 0: none."""
    share = None if run.supervised is None else run.supervised / run.length
    low, high = 0, _LONGEST // _LENGTH_STEP
    while low < high:
        middle = (low + high + 1) // 2
        length = middle * _LENGTH_STEP
        supervised = None if share is None else int(share * length)
        longer = dataclasses.replace(run, length=length, supervised=supervised)
        if predict(longer).bytes <= usable * MIB:
            low = middle
        else:
            high = middle - 1
    return low * _LENGTH_STEP


def _terms(peak: Peak) -> dict[str, dict[str, int]]:
    groups = {"standing": peak.standing, **peak.phases}
    return {
        group: {name: _mib(size) for name, size in terms.items() if size}
        for group, terms in groups.items()
    }


def _mib(size: int) -> int:
    return round(size / MIB)
