"""What this machine can do for a recipe, asked before anything is fetched or written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from palmswift.errors import Problem
from palmswift.launchers.engines.machine import engine_problems, needs_gpu_here
from palmswift.launchers.render import PROGRAM_VARIABLE
from palmswift.launchers.tracking import tracking_problems
from palmswift.plan.cards import CONTEXT_MIB, DESKTOP_MIB, card_called
from palmswift.plan.fit import Conditions, Plan, plan_under
from palmswift.plan.lengths import Lengths
from palmswift.plan.report import fit_command
from palmswift.plan.search import fit
from palmswift.recipes.catalogue import installed_version, shipped_versions
from palmswift.recipes.load import list_recipes
from palmswift.recipes.recipe import Recipe
from palmswift.setup.gpus import Gpu, ask_gpus

CPU_RECIPE = "demo_cpu"
"""The recipe that runs on any machine."""

_SHARE_MIB = CONTEXT_MIB + DESKTOP_MIB

_CAP_VARIABLE, _DEFAULT_CAP_MIB = "PALMSWIFT_GPU_CAP_MIB", 7688
"""Those of the plugin gpu_cap, which imports torch."""


def machine_problems(recipe: Recipe, folder: Path) -> list[Problem]:
    """Why this machine cannot run the recipe with results under `folder`; empty when it can."""
    problems = []
    problems += engine_problems(recipe)
    if needs_gpu_here(recipe):
        problems += _gpu_problems(recipe)
    if installed_version() is None and PROGRAM_VARIABLE not in os.environ:
        problems.append(
            Problem("ms-swift is not installed here", remedy="python3 quickstart.py install")
        )
    problems += [*tracking_problems(recipe), *_reward_problems(recipe)]
    free_mib = shutil.disk_usage(_existing(folder)).free >> 20
    if free_mib + _held_mib(folder) < recipe.budget.disk_mib or not free_mib:
        problems.append(
            Problem(
                f"{folder} has {free_mib:,} MiB free; {recipe.name} needs "
                f"{recipe.budget.disk_mib:,} MiB for model, checkpoints and results",
                remedy="make room (launchers/runs.py clean), or run in a checkout on another disk",
            )
        )
    return problems


def _held_mib(folder: Path) -> int:
    """What a run that is gone on with has on the disk already; 0 for the folder of all runs."""
    if not (folder / "run.json").is_file():
        return 0
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) >> 20


def _reward_problems(recipe: Recipe) -> list[Problem]:
    """Packages of ms-swift's own rewards that are not there: it finds out once all is loaded."""
    said = recipe.swift.get("reward_funcs", [])
    rewards = {str(name) for name in said} if isinstance(said, list) else {str(said)}
    # swift/rewards/orm.py: MathAccuracy, and CosineReward which asks it
    needing = sorted(rewards & {"accuracy", "cosine"})
    if recipe.task != "grpo" or not needing or find_spec("math_verify") is not None:
        return []
    what = f"the reward {' and '.join(needing)} needs the package math_verify"
    return [Problem(what, "swift.reward_funcs", "pip install math_verify, or write a reward")]


def version_remark() -> str:
    """A sentence when the installed ms-swift is not one that recipes are checked against."""
    installed, known = installed_version(), shipped_versions()
    if installed is None or installed in known:
        return ""
    return (
        f"ms-swift {installed} is installed; this recipe was checked against the arguments of "
        f"{known[-1]}, so one that changed since shows only when ms-swift starts"
    )


def _gpu_problems(recipe: Recipe) -> list[Problem]:
    elsewhere = f"what runs here: --recipe {CPU_RECIPE}; to see the command: --dry-run"
    made_for = f"{recipe.name} is made for a GPU of {recipe.budget.gpu_mib:,} MiB"
    report = ask_gpus()
    if report.error:
        what = f"{made_for}, and nvidia-smi fails: {report.error}"
        remedy = f"mend the driver (a restart after its update); {elsewhere}"
        return [Problem(what, remedy=remedy)]
    if not report.gpus:
        what = f"{made_for}, and this machine has no NVIDIA GPU (nvidia-smi lists none)"
        return [Problem(what, remedy=elsewhere)]
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        what = f"{made_for}, and CUDA_VISIBLE_DEVICES hides every GPU"
        return [Problem(what, remedy=f"unset CUDA_VISIBLE_DEVICES; {elsewhere}")]
    return []


def plan_here(recipe: Recipe, lengths: Lengths | None = None) -> Plan:
    """The plan on this machine's roomiest card as it is now, else on the recipe's own."""
    best = _roomiest()
    if best is None or not needs_gpu_here(recipe):
        return plan_under(recipe, Conditions(lengths=lengths))
    return plan_under(recipe, _conditions(best, lengths), card_called(best.name))


def memory_problem(
    recipe: Recipe, lengths: Lengths | None = None, overrides: Sequence[str] = ()
) -> Problem | None:
    """Why the training would run out of the memory that a card has free now; None: it would not.

    `lengths` are those of the rows, where they are known; else they are as long as may be.
    `overrides` are the `--set` words that the recipe came with, for the remedy.
    """
    best = _roomiest()
    if best is None or not needs_gpu_here(recipe):
        return None
    conditions = _conditions(best, lengths)
    plan = plan_under(recipe, conditions)
    if plan.fits is None:
        needed = recipe.budget.gpu_mib - _SHARE_MIB
        basis = "what it is made for; its peak is not predicted"
    else:
        needed = plan.reserved_mib + CONTEXT_MIB
        counted = "all trained on" if plan.supervised is None else f"{plan.supervised} trained on"
        basis = f"predicted for rows of {plan.length} tokens, {counted}"
    free = best.free_mib or 0
    if plan.fits or (plan.fits is None and free >= needed):
        return None
    return Problem(
        f"{recipe.name} needs {needed:,} MiB of GPU memory ({basis}); {best.name} has "
        f"{free:,} MiB free of {best.total_mib or 0:,}",
        remedy="; ".join(_ways_out(recipe, conditions, plan, overrides)),
    )


def _ways_out(
    recipe: Recipe, conditions: Conditions, plan: Plan, overrides: Sequence[str]
) -> list[str]:
    free = conditions.gpu_mib or 0
    ways = ["close what uses the card (nvidia-smi lists it)"]
    fitted = None if plan.fits is None else fit(recipe, conditions)
    if fitted is not None:
        changes = " ".join(change.what for change in fitted.changes)
        command = fit_command(recipe.name, free, overrides, "--headless")
        ways.append(f"or change {changes}: {command}")
    fitting = ", ".join(_recipes_within(free)) or CPU_RECIPE
    return [*ways, f"or take a recipe that fits: {fitting}"]


def conditions_here(recipe: Recipe, lengths: Lengths | None) -> Conditions | None:
    """What the roomiest card has free now; None without one, or for a recipe of the CPU.

    No more than the plugin gpu_cap lets PyTorch reserve, where the recipe names it.
    """
    best = _roomiest()
    if best is None or not recipe.needs_gpu:
        return None
    conditions = _conditions(best, lengths)
    capped = _cap_mib(recipe)
    if capped is None or conditions.gpu_mib is None:
        return conditions
    smaller = min(conditions.gpu_mib, capped + CONTEXT_MIB)
    return conditions.model_copy(update={"gpu_mib": smaller})


def _cap_mib(recipe: Recipe) -> int | None:
    if "gpu_cap" not in recipe.plugins:
        return None
    said = recipe.env.get(_CAP_VARIABLE) or os.environ.get(_CAP_VARIABLE, "")
    return int(said) if said.isdecimal() else _DEFAULT_CAP_MIB


def _conditions(card: Gpu, lengths: Lengths | None) -> Conditions:
    """What is free now is planned with: a desktop has its share already."""
    return Conditions(gpu_mib=card.free_mib, desktop_mib=0, lengths=lengths)


def _roomiest() -> Gpu | None:
    """The card with most memory free; None where there is none, or the driver does not tell."""
    gpus = ask_gpus().gpus
    if not gpus or any(gpu.free_mib is None for gpu in gpus):
        return None  # memory that is shared with the system, of which the driver tells nothing
    return max(gpus, key=lambda gpu: gpu.free_mib or 0)


def _recipes_within(free_mib: int) -> list[str]:
    """The shipped GPU recipes that are made for no more memory than that, the largest first."""
    known = [listed.recipe for listed in list_recipes() if listed.recipe is not None]
    fitting = [
        recipe
        for recipe in known
        if needs_gpu_here(recipe)
        and recipe.launch.world == 1
        and recipe.budget.gpu_mib - _SHARE_MIB <= free_mib
    ]
    return [recipe.name for recipe in sorted(fitting, key=lambda recipe: -recipe.budget.gpu_mib)]


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
