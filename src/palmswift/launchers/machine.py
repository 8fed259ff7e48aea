"""What this machine can do for a recipe, asked before anything is fetched or written."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from palmswift.errors import Problem
from palmswift.recipes.recipe import Recipe

CPU_RECIPE = "demo_cpu"
"""The recipe that runs on any machine."""

_DESKTOP_SHARE_MIB = 500
"""What the CUDA context and the driver take of a card; 180 MiB was seen on a headless 8 GB card."""


class Gpu(NamedTuple):
    """One NVIDIA GPU as nvidia-smi tells it."""

    name: str
    total_mib: int
    free_mib: int
    driver: str


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine; empty when there is none or no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-gpu=name,memory.total,memory.free,driver_version"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[1].isdigit() and fields[2].isdigit():
            found.append(Gpu(fields[0], int(fields[1]), int(fields[2]), fields[3]))
    return found


def machine_problems(recipe: Recipe, folder: Path) -> list[Problem]:
    """Why this machine cannot run the recipe with results under `folder`; empty when it can."""
    problems = []
    if recipe.needs_gpu:
        problems += _gpu_problems(recipe)
    if importlib.util.find_spec("swift") is None:
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


def _gpu_problems(recipe: Recipe) -> list[Problem]:
    found = gpus()
    if not found:
        return [
            Problem(
                f"{recipe.name} is made for a GPU of {recipe.budget.gpu_mib:,} MiB, "
                "and this machine has no NVIDIA GPU (nvidia-smi lists none)",
                remedy=f"what runs here: --recipe {CPU_RECIPE}; to see the command: --dry-run",
            )
        ]
    best = max(found, key=lambda gpu: gpu.total_mib)
    needed = recipe.budget.gpu_mib - _DESKTOP_SHARE_MIB
    if best.free_mib < needed:
        return [
            Problem(
                f"{recipe.name} needs about {needed:,} MiB of GPU memory; {best.name} has "
                f"{best.free_mib:,} MiB free of {best.total_mib:,}",
                remedy="close what uses the card (nvidia-smi lists it), or take a smaller recipe: "
                "qwen3_4b_4bit, qwen3_1_7b_lora, qwen3_0_6b_lora",
            )
        ]
    return []


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
