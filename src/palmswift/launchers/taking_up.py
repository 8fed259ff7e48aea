"""Makes a run's training folder what its last whole checkpoint says, before it is gone on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from palmswift.command import Console
from palmswift.files import atomic_text
from palmswift.launchers.checkpoint_survey import set_aside, survey
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.training_log import parse_record
from palmswift.recipes.source import shown


def take_up(run: RunFolder, console: Console) -> list[Path]:
    """The whole checkpoints by step; torn ones are moved to `torn/` in the run, which is told.

    logging.jsonl ends with the last of them: the steps after it are taken, and logged, again.
    """
    kept, step = [], 0
    for found in survey(run.training):
        if found.fault:
            aside = set_aside(found.path, run.path / "torn")
            console.note(f"note     {found.path.name} is torn: {found.fault}")
            console.note(f"         it is kept as {shown(aside)}; delete it when you like")
        else:
            kept.append(found.path)
            step = found.step
    for left in run.training.glob(".removed-*"):  # exact_resume was letting go of it
        shutil.rmtree(left, ignore_errors=True)
    if kept:
        cut_log(run.training / "logging.jsonl", step)
    return kept


def cut_log(path: Path, step: int) -> None:
    """Keep the whole lines of the steps up to `step`.

    A line that a kill cut off would swallow the one that is appended to it.
    """
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and 0 <= _step_of(line) <= step]
    if len(kept) == len(lines):
        return
    with atomic_text(path) as stream:
        stream.writelines(line.decode("utf-8") for line in kept)


def _step_of(line: bytes) -> int:
    """The step that a line is about; -1 where it is none of a step."""
    record = parse_record(line)
    if record is not None:
        return record.step
    try:
        told = str(json.loads(line)["global_step/max_steps"]).partition("/")[0]
    except (ValueError, KeyError, TypeError, RecursionError):
        return -1
    return int(told) if told.isascii() and told.isdigit() else -1
