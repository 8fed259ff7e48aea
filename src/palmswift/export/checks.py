"""Whether an exported folder holds what was asked for: whole, finite, quantised, of the right size.

Read from the files by slices, without loading a model: a quantisation that was skipped in silence
shows in the weights' own types, whatever config.json says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palmswift.export.manifest import Check
from palmswift.export.quantise import Wanted
from palmswift.launchers.checkpoint_files import missing_parts, read_document, weight_files
from palmswift.launchers.tensor_file import Tensor, all_finite, read_header

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_OVERHEAD = {4: 0.35, 8: 0.10}
"""Scales and zero points, in times of the quantised numbers' own bytes: groups of 64 at the least,
with a scale and a zero point of 16 bits each."""

_SLACK = 0.02
"""Headers, and what a method rounds up."""


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model's folder by name."""
    return {
        name: tensor for file in weight_files(folder) for name, tensor in read_header(file).items()
    }


def weights_bytes(folder: Path) -> int:
    """Bytes of a folder's weight files."""
    return sum(file.stat().st_size for file in weight_files(folder))


def stored_as(folder: Path) -> str:
    """The type that most numbers of a model are stored in, as torch names it."""
    sizes: dict[str, int] = {}
    for tensor in tensors_of(folder).values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.stop - tensor.start
    most = max(sizes, key=lambda name: sizes[name])
    return _NAMES.get(most, most)


def check_model(folder: Path, source: Path | None, asked: Wanted | None) -> list[Check]:
    """Everything that can be told from the files; `source` and `asked` where it was quantised."""
    faults = missing_parts(folder, resumable=False)
    checks = [Check(name="whole", passed=not faults, detail="; ".join(faults))]
    if faults:
        return checks
    checks.append(_finite(folder))
    if asked is not None and source is not None:
        checks += [_quantised(folder, source, asked), _size(folder, source, asked)]
    return checks


def _finite(folder: Path) -> Check:
    bad = [
        name
        for file in weight_files(folder)
        for name, tensor in read_header(file).items()
        if not all_finite(file, tensor)
    ]
    detail = f"NaN or infinite: {', '.join(bad[:3])}" if bad else ""
    return Check(name="finite", passed=not bad, detail=detail)


def layers_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The linear layers inside a 16-bit model's blocks, with their numbers."""
    return {
        name.removesuffix(".weight"): math.prod(tensor.shape)
        for name, tensor in tensors.items()
        if ".layers." in name and name.endswith(".weight") and len(tensor.shape) == 2
    }


def _quantised(folder: Path, source: Path, asked: Wanted) -> Check:
    layers = layers_of(tensors_of(source))
    found = tensors_of(folder)
    plain = [
        layer
        for layer in layers
        if (weight := found.get(f"{layer}.weight")) is not None and weight.dtype in _WIDTHS
    ]
    config = (read_document(folder / "config.json") or {}).get("quantization_config") or {}
    told = told_bits(config)
    faults = [] if layers else ["the model has no linear layers that are known"]
    if told != asked.bits:
        faults.append(f"config.json says {told or 'no'} bits, and {asked.bits} were asked for")
    if plain:
        faults.append(
            f"{len(plain)} of {len(layers)} linear layers are not quantised: {', '.join(plain[:3])}"
        )
    done = f"{len(layers) - len(plain)} of {len(layers)} linear layers in {told} bits"
    return Check(name="quantised", passed=not faults, detail="; ".join(faults) or done)


def told_bits(config: Mapping[str, Any]) -> int | None:
    """The bits that a `quantization_config` tells, of bitsandbytes or compressed-tensors."""
    if config.get("quant_method") == "bitsandbytes":
        return 4 if config.get("load_in_4bit") else 8 if config.get("load_in_8bit") else None
    groups = config.get("config_groups")
    if not isinstance(groups, dict):
        return None
    found = {group.get("weights", {}).get("num_bits") for group in groups.values()}
    return found.pop() if len(found) == 1 else None


def expected_bytes(source: Path, asked: Wanted) -> tuple[int, int]:
    """The least and the most bytes that the quantised weights can have."""
    tensors = tensors_of(source)
    layers = layers_of(tensors)
    inner = sum(layers.values()) * asked.bits // 8
    kept = [
        math.prod(tensor.shape)
        for name, tensor in tensors.items()
        if name.removesuffix(".weight") not in layers
    ]
    least = inner + 2 * sum(kept)
    most = inner * (1 + _OVERHEAD[asked.bits]) + 4 * sum(kept)
    return int(least * (1 - _SLACK)), int(most * (1 + _SLACK)) + (1 << 16)


def _size(folder: Path, source: Path, asked: Wanted) -> Check:
    least, most = expected_bytes(source, asked)
    found = weights_bytes(folder)
    told = f"{found / 1e6:,.1f} MB; {least / 1e6:,.1f} to {most / 1e6:,.1f} MB are to be expected"
    return Check(name="size", passed=least <= found <= most, detail=told)
