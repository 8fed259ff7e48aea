"""Where a recipe's model is: a folder, a hub id that ms-swift fetches, or made on the spot."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from palmswift.errors import ChildError, InputError
from palmswift.files import is_file, locked, sha256_of, write_json, write_text
from palmswift.paths import models_dir, project_path
from palmswift.process import ProcessGroup
from palmswift.recipes.recipe import EmbeddedModel, ModelSource

MANIFEST = "palmswift.json"
"""Written last into a model folder that we made: a folder with it is whole."""

_TRAINING_ONLY = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "args.json")


def missing_model(model: ModelSource) -> str | None:
    """What is wrong with where the model should be; None when it is there or can be made."""
    if model.source == "local" and not is_file(project_path(model.id) / "config.json"):
        return f"{project_path(model.id)} is not a model folder: it has no config.json"
    if model.embedded is not None:
        absent = [name for name in model.embedded.corpus if not is_file(project_path(name))]
        if absent:
            return f"the tokenizer's corpus is missing: {', '.join(absent)}"
    return None


def content_key(*parts: object) -> str:
    """Twelve hex digits that change when any part (JSON-able, or a file's path) changes."""
    digest = hashlib.sha256()
    for part in parts:
        text = sha256_of(part) if isinstance(part, Path) else json.dumps(part, sort_keys=True)
        digest.update(text.encode())
    return digest.hexdigest()[:12]


def cached_model(
    name: str,
    key: str,
    make: Callable[[Path], None],
    note: Callable[[str], object] = lambda line: None,
) -> Path:
    """`models/<name>-<key>`, made by `make` when it is not there; a torn one is made again.

    The folder appears when it is whole. One process makes it; others wait for it, which `note` is
    told.
    """
    folder = models_dir() / f"{name}-{key}"
    if (folder / MANIFEST).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _sole_maker(folder, note):
        if not (folder / MANIFEST).is_file():
            _make_whole(folder, name, key, make)
    return folder


@contextlib.contextmanager
def _sole_maker(folder: Path, note: Callable[[str], object]) -> Iterator[None]:
    lock = folder.with_name(f".{folder.name}.lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(lock))
        except BlockingIOError:
            note(f"another process is making {folder}: waiting for it")
            held.enter_context(locked(lock, wait=True))
        yield


def _make_whole(folder: Path, name: str, key: str, make: Callable[[Path], None]) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        make(part)
        write_json(part / MANIFEST, {"name": name, "key": key})
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def embedded_model(
    name: str, spec: EmbeddedModel, log: Path, note: Callable[[str], object] = lambda line: None
) -> Path:
    """The folder of the small Qwen3 that `spec` describes, made if it is not there yet.

    `ChildError` when it cannot be made, with the end of `log`.
    """
    corpus = [project_path(path) for path in spec.corpus]
    if absent := [path for path in corpus if not is_file(path)]:
        raise InputError(f"the tokenizer's corpus is missing: {', '.join(map(str, absent))}")

    def make(folder: Path) -> None:
        resolved = spec.model_copy(update={"corpus": [str(path) for path in corpus]})
        spec_file = folder / "embedded.json"
        write_text(spec_file, resolved.model_dump_json(indent=2))
        argv = [sys.executable, "-m", "palmswift.hub.embedded", str(spec_file), str(folder)]
        with ProcessGroup(argv, log=log) as child:
            exit_code = child.wait()
        if exit_code != 0:
            last = log.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]
            raise ChildError(
                f"the embedded model {name} could not be made (exit code {exit_code}): {last}",
                remedy=f"the whole output: {log}",
            )

    shape = spec.model_dump(mode="json", exclude={"corpus"})
    return cached_model(name, content_key(shape, *corpus), make, note)


def copy_trained(checkpoint: Path, folder: Path) -> None:
    """Copy a full checkpoint without what only a resumed training needs.

    ms-swift reads `args.json` of a model folder as that model's own settings
    (swift/arguments/base_args/base_args.py, load_args), so it is left behind too.
    """
    for file in checkpoint.iterdir():
        if file.is_file() and file.name not in (*_TRAINING_ONLY, "trainer_state.json"):
            shutil.copy2(file, folder / file.name)
