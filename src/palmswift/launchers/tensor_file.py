"""Reads safetensors files without torch: what is in them, whether they are whole, their numbers.

The format: 8 bytes (little endian) with the length of a JSON header, the header, then the tensors
one after the other (https://huggingface.co/docs/safetensors). Numbers are read by slices, so that a
file of any size takes a few MiB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLICE_BYTES = 8 << 20
_HEADER_MOST = 100 << 20
"""The format's own limit, beyond which a length is that of a damaged file."""

_SIZES = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2},
    **{"I16": 2, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1},
}
_PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_BITS = {"BF16": ("<u2", 0x7F80), "F8_E4M3": ("u1", 0x7F), "F8_E5M2": ("u1", 0x7C)}
"""Types that numpy lacks: their bits, and those that are all set where it is no finite number."""


class TornFile(ValueError):
    """A file that is no whole safetensors file; the text says why."""


class Tensor(NamedTuple):
    """One tensor of a file: its type (`BF16`, `F32`...), shape and place in bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def is_real(self) -> bool:
        """Whether its numbers can be infinite or NaN at all."""
        return self.dtype in _PLAIN or self.dtype in _BITS


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors by name. `TornFile`: the file is not whole; OSError: it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_MOST):
            raise TornFile(f"{path.name} ends within its header")
        try:
            document = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            raise TornFile(f"the header of {path.name} is damaged") from None
    try:
        return _tensors(document, path.name, begin=8 + length, size=size)
    except (KeyError, TypeError, AttributeError):
        raise TornFile(f"the header of {path.name} is damaged") from None


def _tensors(document: Any, name: str, *, begin: int, size: int) -> dict[str, Tensor]:
    found = {}
    for key, entry in document.items():
        if key == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        shape = tuple(int(side) for side in entry["shape"])
        dtype = str(entry["dtype"])
        each = _SIZES.get(dtype)
        if start < 0 or (each is not None and stop - start != each * math.prod(shape)):
            raise TornFile(f"{key} in {name} has another size than its shape says")
        found[key] = Tensor(dtype, shape, begin + start, begin + stop)
    if (end := max((tensor.stop for tensor in found.values()), default=begin)) > size:
        raise TornFile(f"{name} is cut off: {size:,} of {end:,} bytes are there")
    return found


def all_finite(path: Path, tensor: Tensor) -> bool:
    """Whether none of a tensor's numbers is NaN or infinite."""
    import numpy

    if not tensor.is_real:
        return True
    if tensor.dtype in _PLAIN:
        return all(bool(numpy.isfinite(part).all()) for part in _slices(path, tensor))
    mask = _BITS[tensor.dtype][1]
    return all(bool(((part & mask) != mask).all()) for part in _slices(path, tensor))


def all_zero(path: Path, tensor: Tensor) -> bool:
    """Whether a tensor holds nothing but zeros (of either sign)."""
    return not any(bool(part.any()) for part in _numbers(path, tensor))


def differs(path: Path, tensor: Tensor, other_path: Path, other: Tensor) -> bool:
    """Whether two tensors hold other numbers; their types may differ, and then both are rounded to
    the coarser one."""
    import numpy

    if tensor.shape != other.shape:
        return True
    pairs = zip(_numbers(path, tensor), _numbers(other_path, other), strict=False)
    if tensor.dtype == other.dtype:
        return any(not numpy.array_equal(one, two) for one, two in pairs)
    # A weight that was only stored with fewer bits has not been trained.
    coarse = max((tensor.dtype, other.dtype), key=lambda name: -_precision(name))
    step = 2.0 ** -_precision(coarse)
    return any(bool((numpy.abs(one - two) > step * numpy.abs(two)).any()) for one, two in pairs)


def _precision(dtype: str) -> int:
    """Bits of a number's fraction."""
    return {"F64": 52, "F32": 23, "F16": 10, "BF16": 7, "F8_E4M3": 3, "F8_E5M2": 2}.get(dtype, 52)


def _numbers(path: Path, tensor: Tensor) -> Iterator[NDArray[Any]]:
    """A tensor's numbers by slices of as many numbers for every type."""
    import numpy

    for part in _slices(path, tensor):
        if tensor.dtype == "BF16":
            yield (part.astype(numpy.uint32) << 16).view(numpy.float32)
        elif tensor.dtype in _BITS:
            yield part & 0x7F  # without its sign; enough to tell zero, and what differs
        else:
            yield part


def _slices(path: Path, tensor: Tensor) -> Iterator[NDArray[Any]]:
    """A tensor as it is stored, in order, by slices of a million numbers."""
    import numpy

    each = _SIZES.get(tensor.dtype, 1)
    kind = _PLAIN.get(tensor.dtype) or _BITS.get(tensor.dtype, (f"<u{each}",))[0]
    with path.open("rb") as stream:
        stream.seek(tensor.start)
        left = tensor.stop - tensor.start
        while left > 0:
            chunk = stream.read(min(left, (SLICE_BYTES // 8) * each))
            if not chunk:
                raise TornFile(f"{path.name} is cut off")
            left -= len(chunk)
            yield numpy.frombuffer(chunk, dtype=kind)
