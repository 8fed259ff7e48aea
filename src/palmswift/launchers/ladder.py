"""What is changed in a recipe whose training ran out of GPU memory, quality last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Literal, NamedTuple

from palmswift.plan.fit import LENGTH_STEP, Conditions, Plan, plan_under
from palmswift.plan.lengths import Lengths
from palmswift.plan.recipe_run import shape_of_model
from palmswift.plan.steps import (
    Step,
    is_as_sound,
    plugin_steps,
    set_argument,
    set_variable,
    smaller_batch,
    smaller_rank,
    with_swift,
)
from palmswift.recipes.recipe import Recipe

_SMALLEST_RANK = 4
_MARGIN = 0.95
"""A plan that failed in fact is not believed: the next one takes at least a twentieth less."""

_NOT_TRAINING = ("load", "evaluation", "save")


class Rung(NamedTuple):
    """One change that makes a training smaller."""

    name: str
    """A later rung of that name takes the place of the earlier one."""
    step: Step
    keeps_checkpoint: bool = True
    """Whether the training goes on from its last checkpoint: with the same rows in the same order,
    and an optimizer whose state fits."""
    costs: Literal["", "length", "rank"] = ""
    """What is given up."""


class Climb(NamedTuple):
    """A recipe that takes less memory, and how it differs."""

    recipe: Recipe
    changes: list[str]
    """As `--set` takes them."""
    reasons: list[str]
    keeps_checkpoint: bool
    renews_data: bool
    """Whether rows have to be judged again, for some are too long now."""


class Situation(NamedTuple):
    """What a climb depends on, beside the recipe."""

    phase: str
    """Where memory ran out, as `Diagnosis` says it."""
    has_checkpoint: bool = False
    conditions: Conditions | None = None
    """The card as it is now; None where there is none that can be planned for."""
    lengths: Lengths | None = None
    """Of the run's rows."""


def climb(recipe: Recipe, situation: Situation) -> Climb | None:
    """The cheapest change after which the training may fit; None: there is none left.

    Where the planner knows the recipe, rungs are taken until it fits by the plan, without those
    that save nothing; else one at a time. The effective batch stays what it is. On several machines
    nothing is changed: the others would go on with the settings of before.
    """
    if recipe.launch.nodes > 1:
        return None
    need = _needs(recipe, situation)
    now, taken = recipe, dict[str, Rung]()
    for rung in _rungs(recipe, situation):
        changed = rung.step.apply(now)
        if changed == now or not is_as_sound(changed, recipe):
            continue
        after = _needs(changed, situation)
        if need is not None and after is not None:
            current = _needs(now, situation)
            if current is not None and after.phase >= current.phase and after.peak >= current.peak:
                continue
        now = changed
        taken.pop(rung.name, None)
        taken[rung.name] = rung
        if need is None or after is None:
            if rung.name != "allocator":  # which alone is hardly worth a launch
                return _climbed(now, list(taken.values()))
        elif _enough(after, need):
            return _climbed(now, list(taken.values()))
    return _climbed(now, list(taken.values())) if need is None and taken else None


def _climbed(recipe: Recipe, rungs: list[Rung]) -> Climb:
    return Climb(
        recipe,
        [rung.step.what for rung in rungs],
        [rung.step.why for rung in rungs],
        all(rung.keeps_checkpoint for rung in rungs),
        any(rung.costs == "length" for rung in rungs),
    )


class _Needs(NamedTuple):
    phase: int
    """MiB in the phase that failed."""
    peak: int
    fits: bool


def _needs(recipe: Recipe, situation: Situation) -> _Needs | None:
    """What the plan says; None where there is no card, or the recipe is not predicted."""
    plan = _plan(recipe, situation)
    if plan is None:
        return None
    phases = plan.phases_mib
    if situation.phase in ("load", "evaluation") and situation.phase in phases:
        phase = phases[situation.phase]
    else:
        phase = max(mib for name, mib in phases.items() if name not in _NOT_TRAINING)
    return _Needs(phase, plan.peak_mib, plan.fits is True)


def _plan(recipe: Recipe, situation: Situation) -> Plan | None:
    if situation.conditions is None:
        return None
    plan = plan_under(recipe, situation.conditions)
    return plan if plan.device == "gpu" and plan.fits is not None else None


def _enough(after: _Needs, failed: _Needs) -> bool:
    return after.fits and after.phase <= _MARGIN * failed.phase


def _rungs(recipe: Recipe, situation: Situation) -> Iterator[Rung]:
    """The rungs for a phase: first those that change nothing but time and memory."""
    exact = list(_exact(recipe, situation))
    if situation.has_checkpoint:  # what keeps it goes first
        exact.sort(key=lambda rung: not rung.keeps_checkpoint)
    yield from exact
    allowed = recipe.recovery.allow
    if "length" in allowed and situation.phase != "load":
        yield from _shorter(recipe, situation)
    if "rank" in allowed and situation.phase != "load":
        yield from _ranks(recipe)


def _exact(recipe: Recipe, situation: Situation) -> Iterator[Rung]:
    phase = situation.phase
    if phase == "evaluation":
        yield from _evaluation(recipe)
    elif phase != "load":
        yield from _batches(recipe)
    if phase != "load" and _plan(recipe, situation) is not None:
        # Once the phase that failed takes less, the plan may find another one too large.
        yield from _batches(recipe) if phase == "evaluation" else _evaluation(recipe)
    if phase not in ("load", "evaluation") and not recipe.swift.get("gradient_checkpointing", True):
        why = "activations are computed again instead of kept"
        yield Rung("checkpointing", set_argument("gradient_checkpointing", True, why))
    if recipe.needs_gpu:
        yield from _of_the_gpu(recipe, phase)
        yield from _offloads(recipe, phase)


def _offloads(recipe: Recipe, phase: str) -> Iterator[Rung]:
    if recipe.swift.get("tuner_backend", "peft") == "peft" and not _is_sharded(recipe):
        for step in plugin_steps():
            name = step.what.partition("=")[2]
            if phase == "load" and name != "embedding_on_cpu":
                continue
            if phase == "evaluation" and name == "checkpoint_offload":
                continue  # nothing is kept for a backward pass there
            yield Rung(name, step)


def _of_the_gpu(recipe: Recipe, phase: str) -> Iterator[Rung]:
    yield Rung(
        "allocator",
        set_variable(
            "PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True", "the allocator wastes less"
        ),
    )
    if phase == "load":
        return
    if find_spec("liger_kernel") is not None and shape_of_model(recipe.model) is not None:
        why = "the loss without logits, the same to rounding"
        yield Rung("liger", set_argument("use_liger_kernel", True, why))
    optimizer = str(recipe.swift.get("optim", "adamw_torch_fused"))
    if optimizer.startswith("adamw_torch") and find_spec("bitsandbytes") is not None:
        why = "two bytes of optimizer state a number"
        yield Rung("optimizer", set_argument("optim", "adamw_8bit", why), keeps_checkpoint=False)


def _is_sharded(recipe: Recipe) -> bool:
    return recipe.launch.is_distributed


def _batches(recipe: Recipe) -> Iterator[Rung]:
    """Smaller micro-batches of the same effective batch: divisors of what there is, halves first.

    A recipe's accumulation is that of all processes together, so it holds for several as well, and
    goes on to divide by their number. Rows and their
    order stay (ms-swift draws one permutation of all rows, and skips rows by batch times steps),
    but where batches are sorted by length, or what does not fill a batch is left out.
    """
    swift = recipe.swift
    batch = swift.get("per_device_train_batch_size", 1)
    accumulation = swift.get("gradient_accumulation_steps", 16)
    if not isinstance(batch, int) or not isinstance(accumulation, int):
        return
    same_rows = not swift.get("group_by_length") and not swift.get("dataloader_drop_last")
    smaller = [size for size in range(batch // 2, 0, -1) if batch % size == 0]
    for size in smaller:
        times = batch // size
        why = f"the effective batch stays {batch * accumulation}"
        step = smaller_batch(size, accumulation * times, why)
        per_generation = swift.get("steps_per_generation")
        if isinstance(per_generation, int):  # as many answers for each of GRPO's generations
            step = _also(step, "steps_per_generation", per_generation * times)
        yield Rung("batch", step, keeps_checkpoint=same_rows)


def _also(step: Step, name: str, value: int) -> Step:
    apply: Callable[[Recipe], Recipe] = step.apply
    return Step(
        f"{step.what} swift.{name}={value}",
        step.why,
        lambda recipe: with_swift(apply(recipe), **{name: value}),
    )


def _evaluation(recipe: Recipe) -> Iterator[Rung]:
    """One row at a time, what is kept on the CPU, and nothing kept that no metric asks for."""
    swift = recipe.swift
    fewest = swift.get("num_generations", 8) if recipe.task == "grpo" else 1
    values: dict[str, int | bool] = {}
    batch = swift.get("per_device_eval_batch_size", 1)
    if isinstance(fewest, int) and isinstance(batch, int) and batch > fewest:
        values["per_device_eval_batch_size"] = fewest
    if "eval_accumulation_steps" not in swift:
        values["eval_accumulation_steps"] = 1
    wants_logits = swift.get("eval_metric") is not None or swift.get("predict_with_generate")
    if not wants_logits and swift.get("prediction_loss_only") is not True:
        values["prediction_loss_only"] = True
    if not values:
        return
    what = " ".join(f"swift.{name}={str(value).lower()}" for name, value in values.items())
    why = "evaluates row by row; eval_loss is then a mean over rows"
    yield Rung("evaluation", Step(what, why, lambda recipe: with_swift(recipe, **values)))


def _shorter(recipe: Recipe, situation: Situation) -> Iterator[Rung]:
    """Longest rows that fit by the plan; where it is not known, those of 99 in 100, then half."""
    allowed = recipe.swift.get("max_length")
    lengths = situation.lengths
    if not isinstance(allowed, int):
        return
    longest = min(allowed, lengths.longest) if lengths is not None else allowed
    plan = _plan(recipe, situation)
    half = max(LENGTH_STEP, longest // 2 // LENGTH_STEP * LENGTH_STEP)
    tried = [lengths.p99, half] if lengths is not None else [half]
    if plan is not None and plan.longest_length:
        tried = [plan.longest_length, *tried]
    for length in sorted({length for length in tried if 0 < length < longest}, reverse=True):
        why = f"rows of more than {length} tokens are left out"
        step = set_argument("max_length", length, why)
        yield Rung("length", step, keeps_checkpoint=False, costs="length")


def _ranks(recipe: Recipe) -> Iterator[Rung]:
    rank, alpha = recipe.swift.get("lora_rank", 8), recipe.swift.get("lora_alpha", 32)
    if recipe.swift.get("tuner_type") == "full" or not isinstance(rank, int):
        return
    smaller = rank // 2
    while smaller >= _SMALLEST_RANK:
        scaled = alpha * smaller / rank if isinstance(alpha, int | float) else alpha
        whole = int(scaled) if isinstance(scaled, float) and scaled.is_integer() else scaled
        yield Rung("rank", smaller_rank(smaller, whole), keeps_checkpoint=False, costs="rank")
        smaller //= 2
