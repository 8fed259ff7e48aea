"""A run is a folder: its state, resolved recipe, commands, data, training output and reports."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palmswift import __version__
from palmswift.errors import InputError, Problem
from palmswift.files import NO_ROOM, is_file, locked, write_json, write_text
from palmswift.launchers.checkpoint_survey import survey
from palmswift.launchers.disk_room import Reserve
from palmswift.launchers.events import EventJournal, StageEvent
from palmswift.launchers.record import (
    contents_of,
    git_state,
    hardware,
    package_versions,
    plugin_contents,
    seeds_of,
)
from palmswift.paths import runs_dir, user_path
from palmswift.recipes.catalogue import nearest
from palmswift.recipes.load import resolved_yaml
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.shape import shape_problems
from palmswift.recipes.yaml_text import Key, parse

StageState = Literal["running", "done", "failed", "interrupted"]


class Stage(BaseModel):
    """One step of a run: when it ran, how it ended, and the facts it left."""

    model_config = ConfigDict(extra="forbid")

    state: StageState
    started: str
    """UTC, ISO 8601."""
    seconds: float | None = None
    """Of all attempts together."""
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
    git_changes: list[str] = Field(default_factory=list)
    """Tracked files of the checkout that were not as in the commit."""
    overrides: list[str] = Field(default_factory=list)
    resolved: dict[str, Any] = Field(default_factory=dict)
    """The whole recipe, as in recipe.resolved.yaml."""
    seeds: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    """The data files by absolute path, with the SHA-256 of what was in them when the run began."""
    plugins: dict[str, str] = Field(default_factory=dict)
    """The SHA-256 of the plugins that the recipe names."""
    swift_arguments: dict[str, Any] = Field(default_factory=dict)
    """All arguments as ms-swift understood them (train/args.json); empty before it has started."""
    reproduces: str = ""
    """The run that this one repeats."""
    lengthened_at: int | None = None
    """The step of the last checkpoint when the training was given a later end."""
    stages: dict[str, Stage] = Field(default_factory=dict)


def state_now(recipe: Recipe, overrides: list[str] | None = None) -> RunState:
    """What run.json says of a run of `recipe` that begins here and now."""
    git = git_state()
    return RunState(
        recipe=recipe.name,
        created=utc_now(),
        versions=package_versions(recipe),
        hardware=hardware(),
        git_commit=git.commit if git else None,
        git_changes=git.dirty if git else [],
        overrides=overrides or [],
        resolved=recipe.model_dump(mode="json", exclude={"base"}),
        seeds=seeds_of(recipe),
        inputs=contents_of(recipe),
        plugins=plugin_contents(recipe),
    )


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class RunFolder:
    """One run's folder. `run.json` is replaced atomically, so a crash leaves it readable."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.state = self._read_state()
        self.recipe = self._read_recipe(self.path / "recipe.resolved.yaml")
        self.events = EventJournal(self.path / "events.jsonl")
        self._reserve = Reserve(self.path / ".reserve")
        self.stop_asked = False
        """A signal asked for a stop, and what ran came to its end before."""

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
    def launch(self) -> Path:
        """Files that start the training: a scheduler's job, another engine's configuration."""
        return self.path / "launch"

    @property
    def evaluation(self) -> Path:
        """Predictions and evaluation reports."""
        return self.path / "eval"

    @property
    def recovered_recipe(self) -> Path:
        """The recipe as a recovery changed it; there only where one did."""
        return self.path / "recipe.recovered.yaml"

    @property
    def training_recipe(self) -> Recipe:
        """What is trained: the run's recipe, or what a recovery made of it."""
        changed = self.recovered_recipe
        return self._read_recipe(changed) if changed.is_file() else self.recipe

    @classmethod
    def create(
        cls,
        recipe: Recipe,
        *,
        parent: Path | None = None,
        overrides: list[str] | None = None,
        reproduces: str = "",
    ) -> RunFolder:
        """A new folder `<recipe>-<time>` under `parent` (runs/), with its recipe and state.

        `reproduces` is the run that it repeats.
        """
        path = _new_folder(parent or runs_dir(), recipe.name)
        try:
            write_text(path / "recipe.resolved.yaml", resolved_yaml(recipe))
            state = state_now(recipe, overrides)
            state.reproduces = reproduces
            write_json(path / "run.json", state.model_dump(mode="json"))
            return cls(path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def _read_state(self) -> RunState:
        file = self.path / "run.json"
        try:
            return RunState.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.path} is not a run folder: it has no run.json") from None
        except (ValidationError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error

    def _read_recipe(self, file: Path) -> Recipe:
        try:
            text = parse(file.read_text(encoding="utf-8"), str(file))
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
        if text.problems:
            raise InputError(f"{file} cannot be read", text.problems)
        values = text.value if isinstance(text.value, dict) else {}

        def place(key: Key) -> str:
            return f"{file}:{text.lines.get(key, 1)}"

        if problems := shape_problems(values, place):
            raise InputError(
                f"{file} cannot be read: it was written by hand or by another version",
                [*problems.values()],
                remedy=f"this is palmswift {__version__}; run.json tells which one began the run",
            )
        return Recipe.model_validate(values)

    def save(self) -> None:
        """Write run.json; on a full disk into the room that was kept back for it."""
        document = self.state.model_dump(mode="json")
        try:
            write_json(self.path / "run.json", document)
        except OSError as error:
            if error.errno not in NO_ROOM or not self._reserve.give_up():
                raise
            write_json(self.path / "run.json", document)

    @contextlib.contextmanager
    def room_kept(self) -> Iterator[None]:
        """Keep room for the run's record on its disk; `InputError` when there is none."""
        try:
            self._reserve.take()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise InputError(
                f"there is no room for the record of {self.path.name}",
                [Problem(error.strerror or "no room", str(self.path))],
                remedy="make room first: python launchers/runs.py clean",
            ) from None
        try:
            yield
        finally:
            self._reserve.give_up()

    def is_done(self, stage: str) -> bool:
        """Whether the stage has ended well."""
        found = self.state.stages.get(stage)
        return found is not None and found.state == "done"

    def facts(self, stage: str) -> dict[str, Any]:
        """The facts that the stage left; empty when it has not run."""
        found = self.state.stages.get(stage)
        return dict(found.facts) if found else {}

    def stages_document(self) -> dict[str, Any]:
        """The stages as they stand in run.json."""
        return {name: stage.model_dump(mode="json") for name, stage in self.state.stages.items()}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Record a stage: the yielded dict becomes its facts; an exception marks it failed."""
        before = self.state.stages.get(name)
        earlier = (before.seconds or 0.0) if before else 0.0
        stage = Stage(state="running", started=utc_now())
        self.state.stages[name] = stage
        self.save()
        self.events.add(StageEvent(stage=name, state="running"))
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
            stage.seconds = round(earlier + time.monotonic() - begun, 2)
            with contextlib.ExitStack() as forgiven:
                if stage.state != "done":  # why it ended says more than that this was not written
                    forgiven.enter_context(contextlib.suppress(OSError))
                self.save()
            self.events.add(
                StageEvent(stage=name, state=stage.state, seconds=stage.seconds, error=stage.error)
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; a second launcher on it is refused. The lock dies with the process."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(_taken(self.path / _LOCK))
            except BlockingIOError:
                raise InputError(
                    f"{self.path} is in use by another palmswift process",
                    remedy="wait for it, or stop it with Ctrl-C there",
                ) from None
            yield


_LOCK = ".lock"
_LOOKED_AT = 0.3
"""Seconds in which a command that only looks whether a run is held has let go of it."""


def is_held(path: Path) -> bool:
    """Whether a living process works on the run at `path`."""
    lock = path / _LOCK
    if not is_file(lock):
        return False
    try:
        with locked(lock):
            return False
    except BlockingIOError:
        return True


@contextlib.contextmanager
def _taken(lock: Path) -> Iterator[None]:
    """Hold the lock; BlockingIOError when another process does more than look at it."""
    deadline = time.monotonic() + _LOOKED_AT
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(lock))
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield


def _new_folder(parent: Path, name: str) -> Path:
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("itertools.count has no end")


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
    for path in (user_path(name), parent / name):
        if is_file(path / "run.json"):
            return RunFolder(path)
    known = {path.parent.name for path in parent.glob("*/run.json")}
    like = nearest(name, known) or sorted(known)[-3:]
    raise InputError(
        f"there is no run {name!r} in {parent}",
        remedy=f"runs there are: {', '.join(like)}" if like else "no run has been made yet",
    )


def checkpoints(training: Path, *, resumable: bool = True) -> list[Path]:
    """Whole checkpoint folders by step; without `resumable`, their weights are enough."""
    return [found.path for found in survey(training, resumable=resumable) if not found.fault]


def trainer_state(checkpoint: Path) -> dict[str, Any] | None:
    """What trainer_state.json holds; None when it is missing or was cut off."""
    try:
        document = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None
