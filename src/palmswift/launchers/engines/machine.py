"""What this machine lacks for a recipe's launch: cards, packages, schedulers, other Pythons."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from palmswift.errors import Problem
from palmswift.files import is_file
from palmswift.launchers.engines import mlx_engine
from palmswift.launchers.engines.place import is_in_job
from palmswift.paths import project_path
from palmswift.recipes.recipe import Recipe
from palmswift.setup.gpus import ask_gpus

_PACKAGES = {
    **{name: f"palmswift[{name}]" for name in ("deepspeed", "ray")},
    **{name: name for name in ("unsloth", "torch_npu")},
}
"""Import name to what pip is asked for: an extra of ours where there is one."""

SUBMITTED = ("slurm", "kubernetes")
"""Schedulers that train on other machines than the one that asks."""


def submits(recipe: Recipe) -> bool:
    """Whether the training is handed to a scheduler here, rather than run."""
    return recipe.launch.scheduler in SUBMITTED and not is_in_job()


def needs_gpu_here(recipe: Recipe) -> bool:
    """Whether this machine itself has to have an NVIDIA card."""
    launch = recipe.launch
    on_cuda = recipe.needs_gpu and launch.engine == "swift" and launch.device == "cuda"
    return on_cuda and launch.scheduler != "ray" and not submits(recipe)


def engine_problems(recipe: Recipe) -> list[Problem]:
    """Why this machine cannot launch the recipe; empty when it can."""
    return [
        *_file_problems(recipe),
        *_package_problems(recipe),
        *_card_problems(recipe),
        *_scheduler_problems(recipe),
        *(mlx_engine.problems() if recipe.launch.engine == "mlx" else ()),
    ]


def _file_problems(recipe: Recipe) -> Iterator[Problem]:
    own = recipe.launch.strategy_file
    if own is not None and not is_file(project_path(own)):
        remedy = "a path is relative to the project, or absolute"
        yield Problem(f"launch.strategy_file: there is no file {own!r}", remedy=remedy)


def _package_problems(recipe: Recipe) -> Iterator[Problem]:
    launch = recipe.launch
    wanted = {
        "deepspeed": launch.strategy.startswith("zero"),
        "ray": launch.scheduler == "ray",
        "unsloth": recipe.swift.get("tuner_backend") == "unsloth",
        "torch_npu": launch.device == "npu",
    }
    for name, reason in wanted.items():
        if reason and not submits(recipe) and importlib.util.find_spec(name) is None:
            remedy = f"pip install '{_PACKAGES[name]}', in the environment that has ms-swift"
            if name == "unsloth":
                remedy += "; its releases hold transformers back, so best in a .venv of its own"
            yield Problem(f"the package {name} is not installed here", remedy=remedy)


def _card_problems(recipe: Recipe) -> Iterator[Problem]:
    launch = recipe.launch
    if launch.device == "npu" and not submits(recipe):
        if shutil.which("npu-smi") is None and not list(Path("/dev").glob("davinci[0-9]*")):
            what = f"{recipe.name} is made for Ascend NPUs, and npu-smi finds none here"
            yield Problem(what, remedy="to see the command: --dry-run")
        return
    if not needs_gpu_here(recipe) or launch.processes == 1:
        return
    said = recipe.env.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    count = len(ask_gpus().gpus if said is None else [part for part in said.split(",") if part])
    if 0 < count != launch.processes and (said is not None or count < launch.processes):
        where = "CUDA_VISIBLE_DEVICES shows" if said is not None else "this machine has"
        what = f"launch.processes is {launch.processes}, and {where} {count} GPUs: one for each"
        yield Problem(what, remedy=f"--set launch.processes={count}")


def _scheduler_problems(recipe: Recipe) -> Iterator[Problem]:
    if not submits(recipe):
        return
    program = {"slurm": "sbatch", "kubernetes": "kubectl"}[recipe.launch.scheduler]
    if shutil.which(program) is None:
        yield Problem(
            f"launch.scheduler is {recipe.launch.scheduler}, and there is no {program} here",
            remedy=f"run this where {program} is; to see the job: --dry-run",
        )
