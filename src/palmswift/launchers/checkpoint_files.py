"""Whether a checkpoint folder is whole: all that loading it, or going on from it, needs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palmswift.launchers.tensor_file import TornFile, read_header

ADAPTER = "adapter_model.safetensors"
MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
TRAINER_STATE = "trainer_state.json"
FSDP_OPTIMIZER = "optimizer.bin"
EXPORT_MANIFEST = "palmswift-export.json"
"""What an exported model says of itself (palmswift.export.manifest)."""
MLX_STATE = "mlx/optimizer.safetensors"
"""The optimizer's, where MLX has trained (engines/mlx_worker.py)."""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a checkpoint's weights are in; those that are missing, too.

    An adapter's one file, a model's one file, or the shards that its index names.
    """
    if (folder / ADAPTER).exists() or (folder / "adapter_config.json").exists():
        return [folder / ADAPTER]
    index = read_document(folder / INDEX)
    names = index.get("weight_map") if index else None
    if isinstance(names, dict):
        return [folder / name for name in sorted(set(map(str, names.values())))]
    return [folder / MODEL]


def missing_parts(folder: Path, *, resumable: bool) -> list[str]:
    """What is missing or damaged, in words; empty when the checkpoint is whole.

    `resumable` asks for the optimizer, scheduler and trainer state as well, which only going on
    with the training needs. A file's header, its length and an archive's table of contents are
    read, not all of its bytes.
    """
    if not folder.is_dir():
        return [f"{folder.name} is not there"]
    faults = [*_config_faults(folder), *weight_faults(folder)]
    if resumable:
        faults += _state_faults(folder)
    return faults


def _config_faults(folder: Path) -> Iterator[str]:
    if (folder / ADAPTER).exists() or (folder / "adapter_config.json").exists():
        config = read_document(folder / "adapter_config.json")
        if config is None:
            yield "adapter_config.json is missing or damaged"
        elif not config.get("peft_type"):
            yield "adapter_config.json names no peft_type"
        return
    config = read_document(folder / "config.json")
    if config is None:
        yield "config.json is missing or damaged"
    elif not config.get("model_type"):
        yield "config.json names no model_type"
    yield from _tokenizer_faults(folder)


def _tokenizer_faults(folder: Path) -> Iterator[str]:
    vocabulary = folder / "tokenizer.json"
    if vocabulary.exists():
        if read_document(vocabulary) is None:
            yield "tokenizer.json is damaged"
    elif not any((folder / name).exists() for name in ("tokenizer.model", "vocab.json")):
        yield "the tokenizer is missing"


def weight_faults(folder: Path) -> Iterator[str]:
    """What is missing or cut off of the weights; headers and lengths are read."""
    if (folder / INDEX).exists() and read_document(folder / INDEX) is None:
        yield f"{INDEX} is damaged"
    for file in weight_files(folder):
        yield from _unreadable(file)


def _unreadable(file: Path) -> Iterator[str]:
    try:
        if not read_header(file):
            yield f"{file.name} holds no weights"
    except FileNotFoundError:
        yield f"{file.name} is missing"
    except (TornFile, OSError) as error:
        yield str(error)


def _state_faults(folder: Path) -> Iterator[str]:
    if read_document(folder / TRAINER_STATE) is None:
        yield f"{TRAINER_STATE} is missing or damaged"
    # DeepSpeed and MLX keep the optimizer in folders (global_step*/, mlx/), and FSDP in a file of
    # accelerate's, since launchers/templates/fsdp2.json has it gathered.
    elsewhere = any(path.is_dir() for path in folder.iterdir())
    if (folder / MLX_STATE).parent.is_dir():
        yield from _unreadable(folder / MLX_STATE)
    gathered = (folder / FSDP_OPTIMIZER).exists()
    for name in (FSDP_OPTIMIZER if gathered else "optimizer.pt", "scheduler.pt"):
        if not (folder / name).exists():
            if not elsewhere:
                yield f"{name} is missing"
        elif not zipfile.is_zipfile(folder / name):  # its table of contents stands at the end
            yield f"{name} is cut off"
    for file in folder.glob("rng_state*.pth"):
        if not zipfile.is_zipfile(file):
            yield f"{file.name} is cut off"


def read_document(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None when it is missing, cut off, or something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
