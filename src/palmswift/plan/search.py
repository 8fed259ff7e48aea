"""`--fit`: changes a recipe until it fits a card, what costs quality last, and nothing in vain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from palmswift.plan.fit import LENGTH_STEP, Conditions, Plan, plan_under
from palmswift.plan.shapes import QWEN3
from palmswift.plan.steps import (
    Step,
    is_sound,
    plugin_steps,
    set_argument,
    set_variable,
    smaller_batch,
    smaller_rank,
    with_swift,
)
from palmswift.recipes.recipe import Recipe

_SHORTEST = 512
"""Tokens that rows keep where their real lengths are not known."""

_SMALLEST_RANK = 8

_SIZED = re.compile(r"(?P<hub>.*[Qq]wen3-)(?P<size>\d+(?:\.\d+)?B)(?P<rest>(?:-Base)?)")


class Change(BaseModel):
    """One thing that was set otherwise, in order of what it costs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    """As `--set` takes it; a plugin that is added as `plugins+=NAME`."""
    why: str
    saved_mib: int
    """Less reserved at the peak than with the changes before it alone."""


class Fitted(NamedTuple):
    """A recipe that fits, its plan, and what was changed."""

    recipe: Recipe
    plan: Plan
    changes: list[Change]


def fit(recipe: Recipe, conditions: Conditions) -> Fitted | None:
    """The recipe with the fewest costly changes under which it fits; None: there is none.

    No change in it can be left out, and the effective batch stays. Settings that train the same
    come first, then those that take time, then rounding, then shorter rows, a smaller rank and,
    last, a smaller model. None also where the memory is not predicted.
    """
    if conditions.length is not None:  # rows of that length are asked for, not only planned
        recipe = with_swift(recipe, max_length=conditions.length)
    if _under(recipe, conditions).fits is None:
        return None
    for start, first in _models(recipe):
        steps = _enough_steps(start, conditions)
        if steps is None:
            continue
        needed = _only_needed(start, steps, conditions)
        return _fitted(recipe, [*first, *needed], conditions)
    return None


def recipe_yaml(fitted: Fitted, made_by: str, name: str) -> str:
    """A recipe file that stands without a base, with what was changed and why on top of it."""
    from palmswift.recipes.load import resolved_yaml

    plan, recipe = fitted.plan, fitted.recipe
    notes = [f"Made by: {made_by}", f"Peak {plan.peak_mib} MiB, predicted and not measured."]
    notes += [
        f"{change.what}  ({change.why}; {change.saved_mib} MiB less)" for change in fitted.changes
    ] or ["Nothing had to be changed."]
    budget = recipe.budget.model_copy(
        update={
            "gpu_mib": plan.gpu_mib,
            "disk_mib": sum(plan.disk_mib.values()),
            "measured_peak_mib": None if fitted.changes else recipe.budget.measured_peak_mib,
        }
    )
    summary = f"{recipe.model.id} on {plan.gpu_mib} MiB, fitted from {recipe.name}"
    renamed = recipe.model_copy(update={"name": name, "budget": budget, "summary": summary})
    return "".join(f"# {note}\n" for note in notes) + resolved_yaml(renamed)


def _models(recipe: Recipe) -> Iterator[tuple[Recipe, list[Step]]]:
    """The recipe's own model, then the smaller ones of its family, the largest first."""
    yield recipe, []
    named = _SIZED.fullmatch(recipe.model.id)
    if named is None or named["size"].upper() not in QWEN3:
        return
    sizes = list(QWEN3)
    for size in reversed(sizes[: sizes.index(named["size"].upper())]):
        step = _smaller_model(f"{named['hub']}{size}{named['rest']}")
        yield step.apply(recipe), [step]


def _enough_steps(recipe: Recipe, conditions: Conditions) -> list[Step] | None:
    """Steps from the cheapest on until it fits; None when all of them are not enough."""
    taken: list[Step] = []
    now = recipe
    if not is_sound(recipe):
        return None
    for step in _levers(recipe):
        if _fits(now, conditions):
            return taken
        changed = step.apply(now)
        if changed != now and is_sound(changed) and not _needs_more(changed, now, conditions):
            taken.append(step)
            now = changed
    if _fits(now, conditions):
        return taken
    rest = _shorter_or_smaller(now, conditions)
    return None if rest is None else [*taken, *rest]


def _only_needed(recipe: Recipe, steps: Sequence[Step], conditions: Conditions) -> list[Step]:
    """The steps without those that it fits without, tried from the costliest on."""
    needed = list(steps)
    for step in reversed(steps):
        others = [other for other in needed if other is not step]
        changed = _applied(recipe, others)
        if is_sound(changed) and _fits(changed, conditions):
            needed = others
    return needed


def _levers(recipe: Recipe) -> list[Step]:
    """What can be set otherwise while rows, rank and model stay, the cheapest first."""
    swift = recipe.swift
    batch = swift.get("per_device_train_batch_size", 1)
    accumulation = swift.get("gradient_accumulation_steps", 16)
    steps = [
        set_variable(
            "PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True", "the allocator wastes less"
        ),
        set_argument("use_liger_kernel", True, "the loss without logits, the same to rounding"),
        set_argument("lora_dropout", 0.0, "no masks and dropped copies; 3 epochs hardly need them"),
        set_argument(
            "per_device_eval_batch_size",
            1,
            "evaluates row by row; eval_loss is then a mean over rows",
        ),
    ]
    if isinstance(batch, int) and batch > 1 and isinstance(accumulation, int):
        more = batch * accumulation
        why = f"the effective batch stays {more}, and nothing is padded"
        steps += [smaller_batch(1, more, why)]
    steps += [
        set_argument("optim", "adamw_8bit", "two bytes of optimizer state a number"),
        set_argument("bnb_4bit_use_double_quant", True, "quantises the scales too"),
        *plugin_steps(),
        set_argument(
            "lora_dtype", "bfloat16", "rounds the adapter: late, small updates may be lost"
        ),
    ]
    if swift.get("tuner_type") == "full":
        steps.append(
            set_argument("torch_dtype", "bfloat16", "rounds the weights: small updates are lost")
        )
    else:
        steps.append(_quantise())
    return steps


def _shorter_or_smaller(recipe: Recipe, conditions: Conditions) -> list[Step] | None:
    """Shorter rows down to a floor, and where that is not enough the largest rank at which it is.

    Then as long as fits with that rank.
    """
    length = _planned_length(recipe, conditions)
    floor = _floor(length, conditions)
    for rank_steps in _ranks(recipe):
        ranked = _applied(recipe, rank_steps)
        if not _fits(with_swift(ranked, max_length=floor), conditions):
            continue
        if _fits(ranked, conditions):
            return rank_steps
        longest = plan_under(ranked, conditions).longest_length
        fitting = max(floor, min(longest, length))
        if not _fits(with_swift(ranked, max_length=fitting), conditions):
            fitting = floor
        return [set_argument("max_length", fitting, _shorter_why(conditions)), *rank_steps]
    return None


def _shorter_why(conditions: Conditions) -> str:
    if conditions.lengths is None:
        return "longer rows are rejected; --data-report tells how many there are"
    return "rejects at most one row in a hundred"


def _floor(length: int, conditions: Conditions) -> int:
    if conditions.length is not None:
        return length
    if conditions.lengths is not None:
        return min(length, conditions.lengths.p99)
    half = length // 2 // LENGTH_STEP * LENGTH_STEP
    return min(length, max(_SHORTEST, half))


def _planned_length(recipe: Recipe, conditions: Conditions) -> int:
    return plan_under(recipe, conditions).length


def _ranks(recipe: Recipe) -> Iterator[list[Step]]:
    """The recipe's rank, then halves of it, the scale alpha / rank kept."""
    yield []
    rank, alpha = recipe.swift.get("lora_rank", 8), recipe.swift.get("lora_alpha", 32)
    if recipe.swift.get("tuner_type") == "full" or not isinstance(rank, int):
        return
    smaller = rank // 2
    while smaller >= _SMALLEST_RANK:
        scaled = alpha * smaller / rank if isinstance(alpha, int | float) else alpha
        whole = int(scaled) if isinstance(scaled, float) and scaled.is_integer() else scaled
        yield [smaller_rank(smaller, whole)]
        smaller //= 2


def _fits(recipe: Recipe, conditions: Conditions) -> bool:
    return _under(recipe, conditions).fits is True


def _needs_more(changed: Recipe, now: Recipe, conditions: Conditions) -> bool:
    """Whether a change takes memory (an optimizer smaller than ours); one of no use may yet help
    when another phase is the highest."""
    return _under(changed, conditions).reserved_mib > _under(now, conditions).reserved_mib


def _under(recipe: Recipe, conditions: Conditions) -> Plan:
    """The plan with the recipe's own max_length, which a step may have changed."""
    return plan_under(recipe, conditions.model_copy(update={"length": None}))


def _fitted(recipe: Recipe, steps: Sequence[Step], conditions: Conditions) -> Fitted:
    changes, now = [], recipe
    before = _under(now, conditions)
    for step in steps:
        now = step.apply(now)
        after = _under(now, conditions)
        saved = before.reserved_mib - after.reserved_mib
        changes.append(Change(what=step.what, why=step.why, saved_mib=saved))
        before = after
    return Fitted(now, before, changes)


def _applied(recipe: Recipe, steps: Sequence[Step]) -> Recipe:
    for step in steps:
        recipe = step.apply(recipe)
    return recipe


def _quantise() -> Step:
    values = {
        "quant_method": "bnb",
        "quant_bits": 4,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": True,
    }
    what = "swift.quant_method=bnb swift.quant_bits=4"
    return Step(
        what,
        "4-bit weights under the adapter, at a small loss of quality",
        lambda recipe: with_swift(recipe, **values),
    )


def _smaller_model(model_id: str) -> Step:
    def apply(recipe: Recipe) -> Recipe:
        model = recipe.model.model_copy(update={"id": model_id, "revision": None})
        return recipe.model_copy(update={"model": model})

    return Step(f"model.id={model_id}", "the larger one does not fit by any setting", apply)
