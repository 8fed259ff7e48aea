"""Whether training changed a checkpoint's weights, and left finite numbers in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from palmswift.launchers.checkpoint_files import ADAPTER, read_document, weight_files
from palmswift.launchers.tensor_file import (
    Tensor,
    TornFile,
    all_finite,
    all_zero,
    differs,
    read_header,
)


class Weights(NamedTuple):
    """What was found in a checkpoint's weights."""

    not_finite: tuple[str, ...]
    """Tensors with NaN or infinite numbers."""
    changed: bool | None
    """Whether any number is another than before training; None where that cannot be told."""
    tensors: int


def check_weights(checkpoint: Path, base: Path | None) -> Weights:
    """All tensors of a checkpoint: read once by slices, compared with the base as far as needed.

    `base` is the folder of the model that was trained, None when it is not known. An adapter's B
    matrices begin at zero (PEFT's default), what it saved whole (modules_to_save) and full weights
    at the base's numbers. `TornFile` or OSError when a file cannot be read.
    """
    files = weight_files(checkpoint)
    headers = {file: read_header(file) for file in files}
    not_finite = [
        name
        for file, tensors in headers.items()
        for name, tensor in tensors.items()
        if not all_finite(file, tensor)
    ]
    is_adapter = files == [checkpoint / ADAPTER]
    if is_adapter:
        changed = _adapter_changed(checkpoint, headers[files[0]], base)
    else:
        changed = _model_changed(headers, base)
    return Weights(tuple(not_finite), changed, sum(map(len, headers.values())))


def _adapter_changed(
    checkpoint: Path, tensors: Mapping[str, Tensor], base: Path | None
) -> bool | None:
    file = checkpoint / ADAPTER
    config = read_document(checkpoint / "adapter_config.json") or {}
    ups = [name for name in tensors if "lora_B" in name or "lora_embedding_B" in name]
    # Other initialisations (PiSSA, OLoRA, EVA...) begin elsewhere, so that zero tells nothing.
    if ups and config.get("init_lora_weights", True) in (True, "gaussian"):
        if any(not all_zero(file, tensors[name]) for name in ups):
            return True
        whole = [name for name in tensors if "lora_" not in name]  # modules_to_save
        if whole and (base is None or not base.is_dir()):
            return None
        return _any_differs(file, tensors, whole, base)
    return True if ups and any(not all_zero(file, tensors[name]) for name in ups) else None


def _any_differs(
    file: Path, tensors: Mapping[str, Tensor], names: list[str], base: Path | None
) -> bool:
    """Whether a module that an adapter saves whole differs from the base's."""
    originals = {name: (place, tensor) for name, place, tensor in _tensors_of(base)}
    plain = {name: name.removeprefix("base_model.model.") for name in names}
    known = [name for name in names if plain[name] in originals]
    return any(differs(file, tensors[name], *originals[plain[name]]) for name in known)


def _model_changed(headers: Mapping[Path, Mapping[str, Tensor]], base: Path | None) -> bool | None:
    originals = {name: (file, tensor) for name, file, tensor in _tensors_of(base)}
    compared = False
    for file, tensors in headers.items():
        for name, tensor in tensors.items():
            if name in originals:
                compared = True
                if differs(file, tensor, *originals[name]):
                    return True
    return False if compared else None


def _tensors_of(base: Path | None) -> Iterator[tuple[str, Path, Tensor]]:
    """The base's tensors that can be read; none for a base that is not there or is no folder."""
    for file in weight_files(base) if base is not None and base.is_dir() else []:
        try:
            tensors = read_header(file)
        except (TornFile, OSError):
            continue
        for name, tensor in tensors.items():
            yield name, file, tensor
