"""What of old runs nobody needs again, and how it is deleted."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from palmswift.errors import InputError
from palmswift.launchers.run_folder import RunFolder, checkpoints, is_held, trainer_state
from palmswift.launchers.run_list import bytes_under, state_of

RESUME_STATE = ("optimizer.pt", "scheduler.pt", "rng_state*.pth", "scaler.pt", "optimizer.bin")
"""What a checkpoint has for going on with the training; merging and serving do not read it."""


class Item(NamedTuple):
    """Something that can be deleted."""

    run: str
    path: Path
    why: str
    bytes: int


def superfluous(path: Path) -> list[Item]:
    """What the run at `path` can do without; nothing of one that runs or is damaged.

    The best and the last checkpoint, and the one that the run names, are never among it. Of a
    finished run it is also what only going on with the training would read; a run that ended
    without a checkpoint is superfluous wholly.
    """
    if is_held(path):
        return []
    with contextlib.suppress(InputError):
        run = RunFolder(path)
        return list(_of_run(run))
    return []


def _of_run(run: RunFolder) -> Iterator[Item]:
    state, _ = state_of(run)
    kept = checkpoints(run.training, resumable=False)
    name = run.path.name
    has_results = any((run.path / part).exists() for part in ("export", "eval"))
    if not kept and not has_results:
        if state in ("failed", "died", "interrupted"):
            why = f"{state} without a checkpoint"
            yield Item(name, run.path, why, bytes_under(run.path))
        return
    needed = _needed(run, kept)
    for path in sorted(run.training.glob("checkpoint-*")):
        if path.is_symlink() or path in needed:
            continue
        why = "neither the best nor the last" if path in kept else "not whole"
        yield Item(name, path, why, bytes_under(path))
    if state == "done":
        for path in needed:
            for pattern in RESUME_STATE:
                for file in sorted(path.glob(pattern)):
                    why = "only for going on with a training that is done"
                    yield Item(name, file, why, bytes_of(file))


def _needed(run: RunFolder, kept: Sequence[Path]) -> list[Path]:
    """The last checkpoint, the best one, and the one that the run names."""
    if not kept:
        return []
    state = trainer_state(kept[-1]) or {}
    wanted = {
        kept[-1].name,
        f"checkpoint-{state.get('best_global_step')}",
        Path(str(state.get("best_model_checkpoint"))).name,
        Path(str(run.facts("train").get("checkpoint"))).name,
    }
    return [path for path in kept if path.name in wanted]


def bytes_of(path: Path) -> int:
    """Bytes of a file, or of all below a folder."""
    return bytes_under(path) if path.is_dir() else path.stat().st_size


def whole_run(path: Path) -> Item:
    """A run that was named, to be deleted as it is. `InputError` while it runs."""
    if is_held(path):
        raise InputError(
            f"{path.name} is being worked on", remedy="stop it with Ctrl-C in its terminal first"
        )
    return Item(path.name, path, "named", bytes_under(path))


def delete(items: Sequence[Item]) -> None:
    """Delete them, each run's while nobody can begin to work on it. `InputError`: one is."""
    for item in items:
        folder = next(parent for parent in (item.path, *item.path.parents) if _is_run(parent))
        with _held(folder):
            if item.path.is_dir():
                shutil.rmtree(item.path)
            else:
                item.path.unlink(missing_ok=True)


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file() or path.parent == path


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            try:
                run = RunFolder(folder)
            except InputError:  # a damaged one, which was named
                yield
                return
            stack.enter_context(run.lock())
        yield
