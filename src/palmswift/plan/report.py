"""A plan as lines of text: phases as bars, what fits, what to change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from palmswift.plan.cards import (
    CONTEXT_MIB,
    FRAGMENTATION,
    FRAGMENTATION_OF_BLOCKS,
)

if TYPE_CHECKING:
    from palmswift.plan.fit import Plan
    from palmswift.plan.search import Change

_BAR = 28


def plan_text(plan: Plan, overrides: Sequence[str] = ()) -> str:
    """The whole plan of a recipe on a card; `overrides` are the `--set` words it came with."""
    if plan.device == "cpu":
        return f"{plan.recipe}: {plan.remark}"
    lines = [_heading(plan), "", "standing (MiB, predicted)"]
    standing = plan.terms_mib["standing"]
    lines += [f"  {name:<22}{size:>7}" for name, size in standing.items() if size]
    lines += ["", f"peak by phase (MiB, predicted; | is what the card gives, {plan.usable_mib})"]
    lines += _bars(plan)
    terms = plan.terms_mib[plan.limiting_phase]
    highest = ", ".join(f"{name} {mib}" for name, mib in terms.items() if mib)
    lines += [
        "",
        f"{plan.limiting_phase}: {highest or 'what stands'}",
        _card_line(plan),
        f"host memory {_sum(plan.host_mib)} (estimate)"
        + (f"; to merge {_sum(plan.merge_host_mib)}" if plan.merge_host_mib else ""),
        f"disk {_sum(plan.disk_mib)}",
    ]
    if plan.speed is not None:
        lines.append(
            f"time on an {plan.speed.card} (estimate): {plan.speed.seconds_per_step:.1f} s a step,"
            f" {plan.speed.tokens_per_second:.0f} tokens/s, limited by {plan.speed.limit}"
        )
    if plan.remark:
        lines.append(plan.remark)
    if plan.measured_peak_mib is not None:
        lines.append(f"measured peak {plan.measured_peak_mib} MiB")
    lines += _verdict(plan)
    if not plan.fits:
        headless = () if plan.desktop_mib else ("--headless",)
        lines.append(f"what fits: {fit_command(plan.recipe, plan.gpu_mib, overrides, *headless)}")
    return "\n".join(lines)


def changes_text(changes: Sequence[Change]) -> str:
    """What a search changed, a line each, in order of what it costs."""
    if not changes:
        return "changed: nothing, it fits as it is"
    lines = ["changed, what costs quality last (MiB less, and why):"]
    lines += [f"  {change.saved_mib:>6}  {change.what}  ({change.why})" for change in changes]
    return "\n".join(lines)


def fit_command(recipe: str, gpu_mib: int, overrides: Sequence[str], *more: str) -> str:
    """The command that finds what fits a card."""
    import shlex

    sets = [word for override in overrides for word in ("--set", override)]
    words = ["--recipe", recipe, *sets, "--gpu-mib", str(gpu_mib), *more]
    return f"python launchers/plan.py {shlex.join(words)} --fit --out my.yaml"


def _heading(plan: Plan) -> str:
    counted = "all supervised" if plan.supervised is None else f"{plan.supervised} supervised"
    of = "the data's longest row" if plan.from_data else "rows"
    return f"{plan.recipe}: {plan.model}, {of} of {plan.length} tokens, {counted}"


def _bars(plan: Plan) -> list[str]:
    most = max(*plan.phases_mib.values(), plan.usable_mib, 1)
    edge = min(_BAR - 1, plan.usable_mib * _BAR // most)
    lines = []
    for phase, size in plan.phases_mib.items():
        bar = list(("#" * round(size * _BAR / most)).ljust(_BAR))
        bar[edge] = "|"
        mark = "  <- the highest" if phase == plan.limiting_phase else ""
        lines.append(f"  {phase:<22}{size:>7}  {''.join(bar).rstrip()}{mark}")
    return lines


def _card_line(plan: Plan) -> str:
    spare = FRAGMENTATION if plan.expandable_segments else FRAGMENTATION_OF_BLOCKS
    desktop = f", {plan.desktop_mib} for a desktop" if plan.desktop_mib else ""
    return (
        f"card {plan.gpu_mib} MiB, usable {plan.usable_mib} (less {CONTEXT_MIB} for the context"
        f"{desktop}, {spare:.0%} for fragmentation); reserved at the peak {plan.reserved_mib}"
    )


def _verdict(plan: Plan) -> list[str]:
    spare = plan.usable_mib - plan.peak_mib
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    lines = [f"{verdict}: peak {plan.peak_mib} MiB predicted, {spare:+d} MiB to spare"]
    if plan.longest_length:
        lines.append(f"longest row that fits: {plan.longest_length} tokens (predicted)")
    else:
        lines.append("no length fits: take a smaller rank, an 8-bit optimizer or a smaller model")
    if plan.largest_rank:
        lines.append(f"largest LoRA rank that fits: {plan.largest_rank} (predicted)")
    return lines


def _sum(terms: dict[str, int]) -> str:
    return f"{sum(terms.values()):,} MiB"
