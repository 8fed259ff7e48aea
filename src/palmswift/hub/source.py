"""Where a recipe's model is: a folder, a hub id that ms-swift fetches, or made on the spot."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from palmswift.errors import ChildError, InputError
from palmswift.files import sha256_of, write_json, write_text
from palmswift.paths import models_dir, project_root
from palmswift.recipes.recipe import EmbeddedModel, ModelSource

MANIFEST = "palmswift.json"
"""Written last into a model folder that we made: a folder with it is whole."""

_TRAINING_ONLY = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "args.json")


def project_path(name: str) -> Path:
    """A file named in a recipe: absolute, or relative to the working folder or the project."""
    path = Path(name).expanduser()
    if path.is_absolute() or path.exists():
        return path.resolve()
    return (project_root() / path).resolve()


def missing_model(model: ModelSource) -> str | None:
    """What is wrong with where the model should be; None when it is there or can be made."""
    if model.source == "local" and not (project_path(model.id) / "config.json").is_file():
        return f"{project_path(model.id)} is not a model folder: it has no config.json"
    if model.embedded is not None:
        absent = [name for name in model.embedded.corpus if not project_path(name).is_file()]
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


def cached_model(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """`models/<name>-<key>`, made by `make` when it is not there; a torn one is made again."""
    folder = models_dir() / f"{name}-{key}"
    if (folder / MANIFEST).is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(folder)
    write_json(folder / MANIFEST, {"name": name, "key": key})
    return folder


def embedded_model(name: str, spec: EmbeddedModel, log: Path) -> Path:
    """The folder of the small Qwen3 that `spec` describes, made if it is not there yet."""
    corpus = [project_path(path) for path in spec.corpus]
    if absent := [path for path in corpus if not path.is_file()]:
        raise InputError(f"the tokenizer's corpus is missing: {', '.join(map(str, absent))}")

    def make(folder: Path) -> None:
        resolved = spec.model_copy(update={"corpus": [str(path) for path in corpus]})
        spec_file = folder / "embedded.json"
        write_text(spec_file, resolved.model_dump_json(indent=2))
        _run_builder([sys.executable, "-m", "palmswift.hub.embedded", spec_file, folder], log)

    shape = spec.model_dump(mode="json", exclude={"corpus"})
    return cached_model(name, content_key(shape, *corpus), make)


def _run_builder(argv: Sequence[str | Path], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            [str(word) for word in argv], stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        raise ChildError(f"the embedded model could not be made; see {log}")


def copy_trained(checkpoint: Path, folder: Path) -> None:
    """Copy a full checkpoint without what only a resumed training needs.

    ms-swift reads `args.json` of a model folder as that model's own settings
    (swift/arguments/base_args/base_args.py, load_args), so it is left behind too.
    """
    for file in checkpoint.iterdir():
        if file.is_file() and file.name not in (*_TRAINING_ONLY, "trainer_state.json"):
            shutil.copy2(file, folder / file.name)
