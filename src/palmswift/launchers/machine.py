"""What this machine can do for a recipe, asked before anything is fetched or written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from palmswift.errors import Problem
from palmswift.launchers.render import PROGRAM_VARIABLE
from palmswift.recipes.catalogue import installed_version, shipped_versions
from palmswift.recipes.load import list_recipes
from palmswift.recipes.recipe import Recipe
from palmswift.setup.gpus import ask_gpus

CPU_RECIPE = "demo_cpu"
"""The recipe that runs on any machine."""

_DESKTOP_SHARE_MIB = 500
"""What the CUDA context and the driver take of a card; 180 MiB was seen on a headless 8 GB card."""


def machine_problems(recipe: Recipe, folder: Path) -> list[Problem]:
    """Why this machine cannot run the recipe with results under `folder`; empty when it can."""
    problems = []
    if recipe.launch.nodes > 1:
        what = f"launch.nodes is {recipe.launch.nodes}, and palmswift trains on one machine so far"
        problems.append(Problem(what, remedy="--set launch.nodes=1"))
    if recipe.needs_gpu:
        problems += _gpu_problems(recipe)
    if installed_version() is None and PROGRAM_VARIABLE not in os.environ:
        problems.append(
            Problem("ms-swift is not installed here", remedy="python3 quickstart.py install")
        )
    free_mib = shutil.disk_usage(_existing(folder)).free >> 20
    if free_mib < recipe.budget.disk_mib:
        problems.append(
            Problem(
                f"{folder} has {free_mib:,} MiB free; {recipe.name} needs "
                f"{recipe.budget.disk_mib:,} MiB for model, checkpoints and results",
                remedy="make room, or run in a checkout on another disk",
            )
        )
    return problems


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
    if any(gpu.free_mib is None for gpu in report.gpus):
        return []  # memory that is shared with the system, of which the driver tells nothing
    best = max(report.gpus, key=lambda gpu: gpu.free_mib or 0)
    free = best.free_mib or 0
    needed = recipe.budget.gpu_mib - _DESKTOP_SHARE_MIB
    if free >= needed:
        return []
    fitting = ", ".join(_recipes_within(free)) or CPU_RECIPE
    return [
        Problem(
            f"{recipe.name} needs about {needed:,} MiB of GPU memory; {best.name} has "
            f"{free:,} MiB free of {best.total_mib or 0:,}",
            remedy="close what uses the card (nvidia-smi lists it), or take a recipe that fits: "
            f"{fitting}",
        )
    ]


def _recipes_within(free_mib: int) -> list[str]:
    """The shipped GPU recipes that are made for no more memory than that, the largest first."""
    known = [listed.recipe for listed in list_recipes() if listed.recipe is not None]
    fitting = [
        recipe
        for recipe in known
        if recipe.needs_gpu and recipe.budget.gpu_mib - _DESKTOP_SHARE_MIB <= free_mib
    ]
    return [recipe.name for recipe in sorted(fitting, key=lambda recipe: -recipe.budget.gpu_mib)]


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
