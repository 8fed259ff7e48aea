"""What a run came to, read from its folder: its state, steps, losses, time and size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from palmswift.errors import InputError
from palmswift.launchers.engines.jobs import Job, job_of
from palmswift.launchers.run_folder import RunFolder, is_held
from palmswift.launchers.training_log import TrainingLog
from palmswift.paths import runs_dir

State = Literal["running", "done", "failed", "interrupted", "died", "incomplete", "damaged"]
"""`died`: it says that it is running and no process works on it; `incomplete`: not all stages that
it needs for a trained model are done, and none went wrong."""


class RunLine(BaseModel):
    """One run, as a list shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    path: str
    state: State
    recipe: str = ""
    created: str = ""
    """UTC, ISO 8601."""
    stage: str = ""
    """The stage that the state is of."""
    steps: int | None = None
    loss: float | None = None
    """The last one."""
    eval_loss: float | None = None
    """The lowest."""
    seconds: float | None = None
    """Of all stages."""
    bytes: int = 0
    checkpoint: str = ""
    """The one to use, relative to the run."""
    remark: str = ""
    """Why it failed, or what is damaged."""
    job: Job | None = None
    """The scheduler's, which is asked for its state while the run has not come to its end."""


def list_runs(parent: Path | None = None) -> list[RunLine]:
    """All runs under `parent` (runs/), the oldest first; damaged ones too."""
    folders = [file.parent for file in (parent or runs_dir()).glob("*/run.json")]
    with ThreadPoolExecutor(8) as pool:  # each may wait for a scheduler that does not answer
        lines = list(pool.map(line_of, folders))
    return sorted(lines, key=lambda line: (line.created, line.run))


def line_of(path: Path) -> RunLine:
    """What the run at `path` came to."""
    size = bytes_under(path)
    try:
        run = RunFolder(path)
    except InputError as error:
        remark = error.summary.splitlines()[0]
        return RunLine(run=path.name, path=str(path), state="damaged", bytes=size, remark=remark)
    state, stage = state_of(run)
    facts = run.facts("train")
    steps, loss, eval_losses = facts.get("steps"), facts.get("last_loss"), facts.get("eval_losses")
    if steps is None and (run.training / "logging.jsonl").is_file():
        log = TrainingLog(run.training / "logging.jsonl")
        log.poll()
        steps = max((record.step for record in log.records), default=None)
        loss, eval_losses = log.losses[-1] if log.losses else None, log.eval_losses
    return RunLine(
        run=path.name,
        path=str(path),
        state=state,
        recipe=run.state.recipe,
        created=run.state.created,
        stage=stage,
        steps=steps,
        loss=loss,
        eval_loss=min(eval_losses) if eval_losses else None,
        seconds=_seconds(run),
        bytes=size,
        checkpoint=str(facts.get("checkpoint", "")),
        remark=_remark(run, stage),
        job=job_of(run, ask=state != "done"),
    )


def state_of(run: RunFolder) -> tuple[State, str]:
    """The run's state, and the stage that it is of (empty: of none)."""
    held = is_held(run.path)
    last = ""
    for name, stage in run.state.stages.items():
        last = name
        if stage.state == "running":
            return ("running" if held else "died"), name
        if stage.state in ("failed", "interrupted"):
            # Going on with it has begun, and has not come to a stage yet.
            return ("running" if held else stage.state), name
    if held:
        return "running", last
    return ("done", last) if run.is_done("train") else ("incomplete", last)


def _remark(run: RunFolder, stage: str) -> str:
    found = run.state.stages.get(stage)
    if found is None or found.state == "done":
        return ""
    failure = found.facts.get("failure")
    if isinstance(failure, dict):
        return f"{failure.get('kind')}: {failure.get('cause')}"
    return found.error.splitlines()[0] if found.error else ""


def _seconds(run: RunFolder) -> float | None:
    stages = run.state.stages.values()
    if not stages:
        return None
    seconds = sum(stage.seconds or 0.0 for stage in stages)
    for stage in stages:
        if stage.state == "running" and is_held(run.path):
            begun = datetime.fromisoformat(stage.started)
            seconds += max(0.0, (datetime.now(timezone.utc) - begun).total_seconds())
    return round(seconds, 1)


def bytes_under(path: Path) -> int:
    """Bytes of all files below `path`; links count nothing, hard links once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for entry in _files(path):
        status = entry.stat(follow_symlinks=False)
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total


def _files(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield entry
    except (FileNotFoundError, PermissionError):  # it is being worked on, or is not ours
        return


def size_words(count: int) -> str:
    """Bytes for people: `512 B`, `1.5 MB`, `16.4 GB` (powers of 1000, as disks are sold)."""
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
