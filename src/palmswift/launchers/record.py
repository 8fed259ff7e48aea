"""What run.json keeps besides the stages, so that a run can be repeated from it alone."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

from palmswift.errors import InputError
from palmswift.files import sha256_of
from palmswift.launchers.events import read_events
from palmswift.launchers.feed import curve
from palmswift.launchers.plugin_files import plugin_path
from palmswift.paths import project_path, project_root
from palmswift.recipes.recipe import Recipe
from palmswift.setup.gpus import ask_gpus

RECORDED_PACKAGES = (
    *("ms-swift", "torch", "transformers", "peft", "trl", "bitsandbytes", "vllm"),
    *("accelerate", "datasets", "tokenizers", "liger-kernel", "deepspeed"),
    *("ray", "unsloth", "torch-npu", "mlx", "mlx-lm"),
)
"""Packages whose versions decide what a run does; their versions stand in run.json."""

_SMALL = 1 << 20
"""Bytes up to which a model's file is known by its hash; weights are known by their size."""


class GitState(BaseModel):
    """Where the project's checkout stood."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str
    dirty: list[str]
    """Tracked files that differ from the commit, at most 50."""


def package_versions(recipe: Recipe | None = None) -> dict[str, str]:
    """Versions of the packages that decide what a run does; missing ones are left out.

    Those of MLX are the ones of the Python that trains `recipe`, which may be another than ours.
    """
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    if recipe is not None and recipe.launch.engine == "mlx":
        from palmswift.launchers.engines import mlx_engine

        found |= mlx_engine.versions()
    return found


def hardware() -> dict[str, Any]:
    """System, processor count, memory in MiB and the GPUs that nvidia-smi lists."""
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "gpus": [gpu._asdict() for gpu in ask_gpus().gpus],
    }


def git_state() -> GitState | None:
    """The commit that the project's checkout stands at, None outside a checkout."""
    # The wheel's own folder may lie in a repository of the user's, which is none of ours.
    if not (project_root() / ".git").exists():
        return None
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    changed = (_git("diff", "--name-only", "HEAD") or "").splitlines()
    return GitState(commit=commit.strip(), dirty=changed[:50])


def _git(*words: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    # Without the optional lock a run that is started does not get in the way of a commit.
    command = [git, "--no-optional-locks", "-C", str(project_root()), *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return done.stdout if done.returncode == 0 else None


def contents_of(recipe: Recipe) -> dict[str, str]:
    """The recipe's data files that can be read, by absolute path, with their SHA-256."""
    from palmswift.data.read import open_files

    found = {}
    for name in (*recipe.data.train, *recipe.data.val):
        with contextlib.suppress(InputError):  # told by the preflight
            for file in open_files([project_path(name)]):
                found[str(file.path.absolute())] = sha256_of(file.path)
    return found


def plugin_contents(recipe: Recipe) -> dict[str, str]:
    """The recipe's plugin files by their entry, with their SHA-256."""
    found = {}
    for entry in recipe.plugins:
        with contextlib.suppress(InputError, OSError):  # told by the preflight
            found[entry] = sha256_of(plugin_path(entry))
    return found


def seeds_of(recipe: Recipe) -> dict[str, Any]:
    """Every seed that the recipe names, by its key."""
    found: dict[str, Any] = {"data.seed": recipe.data.seed}
    for name, value in recipe.swift.items():
        if name == "seed" or name.endswith("_seed"):
            found[f"swift.{name}"] = value
    if recipe.model.embedded is not None:
        found["model.embedded.seed"] = recipe.model.embedded.seed
    return found


def model_contents(model: str) -> dict[str, str]:
    """What is in a model's folder: the SHA-256 of small files, the bytes of weights.

    Empty for a hub id: the hub's revision stands in the recipe.
    """
    folder = Path(model)
    if not folder.is_dir():
        return {}
    return {
        file.name: sha256_of(file) if size <= _SMALL else f"{size} bytes"
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.name.startswith(".")
        for size in [file.stat().st_size]
    }


def swift_arguments(training: Path) -> dict[str, Any]:
    """All arguments as ms-swift has understood them (its args.json); empty before it has."""
    try:
        document = json.loads((training / "args.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def memory_record(run: Path) -> dict[str, Any]:
    """Planned against measured memory, MiB; `measured` are the peaks that events.jsonl tells of."""
    steps, _ = curve(read_events(run / "events.jsonl"))
    peaks = [step.memory_mib for step in steps if step.memory_mib]
    found: dict[str, Any] = {"measured_mib": max(peaks)} if peaks else {}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
        if plan.get("reserved_mib"):
            found["planned_mib"] = plan["reserved_mib"]
        if found:
            found["of"] = "reserved on the card" if plan.get("device") == "gpu" else "resident"
    return found
