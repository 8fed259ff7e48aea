"""Says whether a recipe fits a GPU, by how much, and how long its rows may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from palmswift.plan.cards import (
    DESKTOP_MIB,
    Card,
    card_of_size,
    reserved_mib,
    usable_mib,
)
from palmswift.plan.host import disk_mib, merge_host_mib, training_host_mib
from palmswift.plan.lengths import Lengths
from palmswift.plan.lifetime import lifetime
from palmswift.plan.memory import MIB, Peak, TrainingRun
from palmswift.plan.recipe_run import Unpredicted, training_run
from palmswift.plan.speed import speed_of
from palmswift.recipes.recipe import Recipe

LENGTH_STEP = 64
_LARGEST_RANK = 512


class Estimate(BaseModel):
    """How fast it trains at the most on one card: a roofline, not a measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    card: str
    seconds_per_step: float
    tokens_per_second: float
    limit: str


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
    desktop_mib: int = 0
    """Counted for a desktop beside the CUDA context; 0 on a headless machine."""
    usable_mib: int = 0
    """What PyTorch can allocate: the card less context, desktop and fragmentation."""
    length: int = 0
    supervised: int | None = None
    """Most tokens of a row that have a loss; null: all, the worst case."""
    from_data: bool = False
    """Whether length and supervised are those of the rows themselves."""
    peak_mib: int = 0
    """Allocated at the height of the training."""
    reserved_mib: int = 0
    """What the caching allocator holds then, as `memory(GiB)` in ms-swift's log counts it."""
    expandable_segments: bool = False
    limiting_phase: str = ""
    longest_length: int = 0
    """Longest row in tokens that fits, a multiple of 64, in the same proportion supervised."""
    largest_rank: int = 0
    """Largest LoRA rank that fits; 0: none, or nothing but the weights is trained."""
    measured_peak_mib: int | None = None
    phases_mib: dict[str, int] = Field(default_factory=dict)
    """Total at the height of each phase, from loading to saving."""
    terms_mib: dict[str, dict[str, int]] = Field(default_factory=dict)
    """What each total is made of: `standing` is there all along."""
    host_mib: dict[str, int] = Field(default_factory=dict)
    """Host memory while it trains."""
    merge_host_mib: dict[str, int] = Field(default_factory=dict)
    """Host memory of merging the adapter, which is done on the CPU."""
    disk_mib: dict[str, int] = Field(default_factory=dict)
    speed: Estimate | None = None


class Conditions(BaseModel):
    """What a recipe is planned for, where it is not as the recipe says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_mib: int | None = None
    """Memory of the card; None: the recipe's budget."""
    desktop_mib: int = DESKTOP_MIB
    length: int | None = None
    """Longest row; None: the recipe's max_length."""
    supervised: int | None = None
    lengths: Lengths | None = None
    """Of the rows themselves; `length` and `supervised` go before."""


def plan_recipe(
    recipe: Recipe,
    *,
    gpu_mib: int | None = None,
    length: int | None = None,
    supervised: int | None = None,
) -> Plan:
    """The plan of `recipe` on a card of `gpu_mib` (its budget's when None), rows of `length`."""
    return plan_under(recipe, Conditions(gpu_mib=gpu_mib, length=length, supervised=supervised))


def plan_under(recipe: Recipe, conditions: Conditions, card: Card | None = None) -> Plan:
    """The plan of `recipe` under `conditions`; `card` is timed, else one of that memory."""
    gpu_mib = recipe.budget.gpu_mib if conditions.gpu_mib is None else conditions.gpu_mib
    if not recipe.needs_gpu:
        remark = "runs on the CPU: no GPU memory is needed"
        return _bare(recipe, device="cpu", fits=True, remark=remark, gpu_mib=0)
    run = run_under(recipe, conditions)
    if isinstance(run, Unpredicted):
        return _bare(recipe, device="gpu", fits=None, remark=run.reason, gpu_mib=gpu_mib)
    expandable = expands(recipe)
    usable = usable_mib(gpu_mib, desktop_mib=conditions.desktop_mib, expandable=expandable)
    peak = lifetime(run)
    return Plan(
        recipe=recipe.name,
        model=recipe.model.id,
        device="gpu",
        remark=f"an upper bound: {run.bound}" if run.bound else "",
        fits=peak.bytes <= usable * MIB,
        gpu_mib=gpu_mib,
        desktop_mib=conditions.desktop_mib,
        usable_mib=usable,
        length=run.length,
        supervised=run.supervised,
        from_data=conditions.lengths is not None,
        peak_mib=_mib(peak.bytes),
        reserved_mib=reserved_mib(_mib(peak.bytes), expandable=expandable),
        expandable_segments=expandable,
        limiting_phase=peak.limiting,
        longest_length=longest_length(run, usable),
        largest_rank=0 if run.full else largest_rank(run, usable),
        measured_peak_mib=recipe.budget.measured_peak_mib,
        phases_mib={phase: _mib(peak.total(phase)) for phase in peak.phases},
        terms_mib=_terms(peak),
        host_mib=training_host_mib(recipe, run),
        merge_host_mib=merge_host_mib(run),
        disk_mib=disk_mib(recipe, run),
        speed=_estimate(run, card or card_of_size(gpu_mib)),
    )


def _bare(
    recipe: Recipe, *, device: Literal["cpu", "gpu"], fits: bool | None, remark: str, gpu_mib: int
) -> Plan:
    """A plan without figures."""
    return Plan(
        recipe=recipe.name,
        model=recipe.model.id,
        device=device,
        fits=fits,
        remark=remark,
        gpu_mib=gpu_mib,
    )


def run_under(recipe: Recipe, conditions: Conditions) -> TrainingRun | Unpredicted:
    """The recipe's run with the rows that it will see: none is longer than max_length."""
    length, supervised, data = conditions.length, conditions.supervised, conditions.lengths
    if data is not None:
        longest = recipe.swift.get("max_length")
        allowed = longest if isinstance(longest, int) else data.longest
        length = length or min(data.longest, allowed)
        supervised = supervised or min(data.most_supervised, length)
    return training_run(recipe, length, supervised)


def expands(recipe: Recipe) -> bool:
    """Whether the recipe has the allocator use expandable segments, which fragment less."""
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    return any("expandable_segments:true" in recipe.env.get(name, "").lower() for name in names)


def longest_length(run: TrainingRun, usable: int) -> int:
    """Longest row in tokens, a multiple of 64, whose training stays within `usable` MiB; 0: none.

    The same share of it is supervised as of the run's rows. No more than the model was made for.
    """
    share = None if run.supervised is None else run.supervised / run.length

    def fits(steps: int) -> bool:
        length = steps * LENGTH_STEP
        supervised = None if share is None else int(share * length)
        longer = dataclasses.replace(run, length=length, supervised=supervised)
        return lifetime(longer).bytes <= usable * MIB

    return LENGTH_STEP * _largest(fits, run.shape.positions // LENGTH_STEP)


def largest_rank(run: TrainingRun, usable: int) -> int:
    """Largest LoRA rank up to 512 whose training stays within `usable` MiB; 0: none."""

    def fits(rank: int) -> bool:
        return lifetime(dataclasses.replace(run, rank=rank)).bytes <= usable * MIB

    return _largest(fits, _LARGEST_RANK)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, 0 when 1 does not: none fits above one that
    does not."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _estimate(run: TrainingRun, card: Card | None) -> Estimate | None:
    if card is None:
        return None
    speed = speed_of(run, card)
    return Estimate(
        card=card.name,
        seconds_per_step=round(speed.seconds_per_step, 2),
        tokens_per_second=round(speed.tokens_per_second, 1),
        limit=speed.limit,
    )


def _terms(peak: Peak) -> dict[str, dict[str, int]]:
    groups = {"standing": peak.standing, **peak.phases}
    return {
        group: {name: _mib(size) for name, size in terms.items() if size}
        for group, terms in groups.items()
    }


def _mib(size: int) -> int:
    return round(size / MIB)
