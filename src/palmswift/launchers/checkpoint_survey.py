"""The checkpoints of a training: which are whole, which are torn, and which is its end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from palmswift.launchers.checkpoint_files import missing_parts, read_document

SEAL = "exact_resume.json"
"""What the plugin exact_resume writes last, once all else is on the disk."""

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class Checkpoint(NamedTuple):
    """A checkpoint folder, and why it cannot be gone on from; empty when it can."""

    step: int
    path: Path
    fault: str = ""


def survey(training: Path, *, resumable: bool = True) -> list[Checkpoint]:
    """All checkpoints under `training` by step, the torn ones with what is wrong with them.

    Without `resumable`, what only going on with the training would read may be missing.
    """
    found = []
    for path in training.glob("checkpoint-*"):
        match = _CHECKPOINT.fullmatch(path.name)
        if match and path.is_dir():
            found.append(Checkpoint(int(match[1]), path, _fault(path, resumable)))
    found.sort()
    sealed = [each.step for each in found if (each.path / SEAL).is_file()]
    return [_unsealed(each, sealed) for each in found]


def _unsealed(found: Checkpoint, sealed: list[int]) -> Checkpoint:
    """Where an earlier one was sealed, one without a seal may not be wholly on the disk."""
    if found.fault or found.step in sealed or not any(step < found.step for step in sealed):
        return found
    return found._replace(fault="its saving did not come to an end")


def _fault(folder: Path, resumable: bool) -> str:
    """Why a checkpoint is not whole; no file is read to its end."""
    # Which parts there are to be is what ms-swift has been told: `save_only_model` or not.
    arguments = read_document(folder / "args.json") or {}
    resumable = resumable and arguments.get("save_only_model") is not True
    try:
        faults = missing_parts(folder, resumable=resumable) or _seal_faults(folder, resumable)
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read: {error.strerror}"
    return "; ".join(faults)


def _seal_faults(folder: Path, resumable: bool) -> list[str]:
    """Files that have another length than when they were sealed."""
    if not (folder / SEAL).is_file():
        return []
    files = (read_document(folder / SEAL) or {}).get("files")
    if not isinstance(files, dict):
        return [f"{SEAL} is damaged"]
    sizes = {name: _size(folder / name) for name in files}
    return [
        f"{name} has {size:,} bytes instead of {files[name]:,}" if size else f"{name} is missing"
        for name, size in sizes.items()
        if size != files[name] and (resumable or name.endswith(".safetensors"))
    ]


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def is_finished(checkpoint: Path, lengthened_at: int | None = None) -> bool:
    """Whether no step is left to take; `lengthened_at` is the step at which there came to be more.

    transformers would take one more step from such a checkpoint in the middle of an epoch.
    """
    state = read_document(checkpoint / "trainer_state.json") or {}
    step, last = state.get("global_step"), state.get("max_steps")
    return (
        isinstance(step, int)
        and isinstance(last, int)
        and step >= last > 0
        and step != lengthened_at
    )


def set_aside(checkpoint: Path, folder: Path) -> Path:
    """Move a torn checkpoint into `folder`, where it is not taken for a whole one; its new path."""
    folder.mkdir(exist_ok=True)
    number = 1
    while True:
        aside = folder / (checkpoint.name if number == 1 else f"{checkpoint.name}-{number}")
        if not aside.exists():
            return checkpoint.rename(aside)
        number += 1
