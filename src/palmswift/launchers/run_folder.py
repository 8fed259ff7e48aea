"""A run is a folder: its state, resolved recipe, commands, data, training output and reports."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palmswift import __version__
from palmswift.errors import InputError
from palmswift.files import write_json, write_text
from palmswift.launchers.machine import gpus
from palmswift.paths import project_root, runs_dir
from palmswift.recipes.recipe import Recipe

StageState = Literal["running", "done", "failed", "interrupted"]

RECORDED_PACKAGES = ("ms-swift", "torch", "transformers", "peft", "trl", "bitsandbytes", "vllm")
"""Packages whose versions decide what a run does; their versions stand in run.json."""


class Stage(BaseModel):
    """One step of a run: when it ran, how it ended, and the facts it left."""

    model_config = ConfigDict(extra="forbid")

    state: StageState
    started: str
    """UTC, ISO 8601."""
    seconds: float | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    error: str = ""


class RunState(BaseModel):
    """What run.json holds."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    recipe: str
    created: str
    palmswift: str = __version__
    versions: dict[str, str]
    hardware: dict[str, Any]
    git_commit: str | None = None
    overrides: list[str] = Field(default_factory=list)
    stages: dict[str, Stage] = Field(default_factory=dict)


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class RunFolder:
    """One run's folder. `run.json` is replaced atomically, so a crash leaves it readable."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.state = self._read_state()
        self.recipe = self._read_recipe()

    @property
    def data(self) -> Path:
        """train.jsonl, val.jsonl, rejected.jsonl and the data report."""
        return self.path / "data"

    @property
    def training(self) -> Path:
        """What ms-swift writes: checkpoints, logging.jsonl, TensorBoard files."""
        return self.path / "train"

    @property
    def logs(self) -> Path:
        """Raw output of every child process."""
        return self.path / "logs"

    @property
    def evaluation(self) -> Path:
        """Predictions and evaluation reports."""
        return self.path / "eval"

    @classmethod
    def create(
        cls, recipe: Recipe, *, parent: Path | None = None, overrides: list[str] | None = None
    ) -> RunFolder:
        """A new folder `<recipe>-<time>` under `parent` (runs/), with its recipe and state."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        parent = parent or runs_dir()
        path = parent / f"{recipe.name}-{stamp}"
        for number in range(2, 1000):
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                path = parent / f"{recipe.name}-{stamp}-{number}"
        resolved = yaml.safe_dump(
            recipe.model_dump(mode="json", exclude={"base"}), allow_unicode=True, sort_keys=False
        )
        write_text(path / "recipe.resolved.yaml", resolved)
        state = RunState(
            recipe=recipe.name,
            created=utc_now(),
            versions=package_versions(),
            hardware=hardware(),
            git_commit=git_commit(),
            overrides=overrides or [],
        )
        write_json(path / "run.json", state.model_dump(mode="json"))
        return cls(path)

    def _read_state(self) -> RunState:
        file = self.path / "run.json"
        try:
            return RunState.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.path} is not a run folder: it has no run.json") from None
        except (ValidationError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error

    def _read_recipe(self) -> Recipe:
        file = self.path / "recipe.resolved.yaml"
        try:
            return Recipe.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (OSError, ValidationError, yaml.YAMLError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error

    def save(self) -> None:
        """Write run.json."""
        write_json(self.path / "run.json", self.state.model_dump(mode="json"))

    def is_done(self, stage: str) -> bool:
        """Whether the stage has ended well."""
        found = self.state.stages.get(stage)
        return found is not None and found.state == "done"

    def facts(self, stage: str) -> dict[str, Any]:
        """The facts that the stage left; empty when it has not run."""
        found = self.state.stages.get(stage)
        return dict(found.facts) if found else {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Record a stage: the yielded dict becomes its facts; an exception marks it failed."""
        stage = Stage(state="running", started=utc_now())
        self.state.stages[name] = stage
        self.save()
        begun = time.monotonic()
        try:
            yield stage.facts
            stage.state = "done"
        except KeyboardInterrupt:
            stage.state = "interrupted"
            raise
        except Exception as error:
            stage.state = "failed"
            stage.error = str(error)
            raise
        finally:
            stage.seconds = round(time.monotonic() - begun, 2)
            self.save()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; a second launcher on it is refused. The lock dies with the process."""
        handle = (self.path / ".lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise InputError(
                f"{self.path} is in use by another palmswift process",
                remedy="wait for it, or stop it with Ctrl-C there",
            ) from None
        try:
            yield
        finally:
            handle.close()


def find_run(name: str, *, parent: Path | None = None) -> RunFolder:
    """The run called `name`: `latest`, a folder's name under runs/, or a path."""
    parent = parent or runs_dir()
    if name == "latest":
        runs = [path.parent for path in parent.glob("*/run.json")]
        if not runs:
            raise InputError(
                f"there is no run under {parent} yet",
                remedy="python launchers/train.py --recipe qwen3_8b_4bit --data my.jsonl",
            )
        return RunFolder(max(runs, key=lambda path: (path / "run.json").stat().st_ctime_ns))
    for path in (Path(name), parent / name):
        if (path / "run.json").is_file():
            return RunFolder(path)
    known = sorted(path.parent.name for path in parent.glob("*/run.json"))[-3:]
    raise InputError(
        f"there is no run {name!r} in {parent}",
        remedy=f"runs there are: {', '.join(known)}" if known else "no run has been made yet",
    )


_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def checkpoints(training: Path) -> list[Path]:
    """Checkpoint folders with a trainer state and weights in them, by step."""
    found = []
    for path in training.glob("checkpoint-*"):
        match = _CHECKPOINT.fullmatch(path.name)
        if match and (path / "trainer_state.json").is_file() and any(path.glob("*.safetensors")):
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what a run does; missing ones are left out."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def hardware() -> dict[str, Any]:
    """System, processor count, memory in MiB and the GPUs that nvidia-smi lists."""
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "gpus": [gpu._asdict() for gpu in gpus()],
    }


def git_commit() -> str | None:
    """The commit that the project's checkout stands at, None outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run(
        [git, "-C", str(project_root()), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return done.stdout.strip() if done.returncode == 0 else None
