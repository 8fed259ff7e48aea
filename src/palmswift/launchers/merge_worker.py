"""The child that merges an adapter into its base, weight by weight: `... merge_worker SPEC RESULT`.

A weight is read from the base's file, given to peft's own LoRA layer, merged there, written, and
forgotten; what the adapter does not touch is copied as it stands. So the arithmetic is that of
peft's `merge_and_unload`, and memory holds one weight. One that alone is over the memory limit is
merged a few rows at a time: its rows do not depend on one another.
"""

from __future__ import annotations

import json
import math
import os
import resource
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import psutil
import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Embedding, Linear
from peft.utils.other import get_pattern_key

from palmswift.files import NO_ROOM, write_text
from palmswift.launchers.checkpoint_files import ADAPTER
from palmswift.launchers.merge_plan import MergeResult, MergeSpec, base_tensors, module_parts
from palmswift.launchers.tensor_file import Tensor, read_header

_TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16},
    **{"BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool},
    **{"I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}
_RSS_SHIFT = 20 if sys.platform == "darwin" else 10
"""The system tells its peak in bytes on a Mac, in KiB elsewhere."""

_COPY_BYTES = 8 << 20
_WORKING_BYTES = 28
"""Bytes that merging one number takes at most: the weight as stored and as float32, B x A, and,
for DoRA, the sum and its square."""


class GaveUp(Exception):
    """The merge cannot be done; the text is for the user."""


@dataclass(frozen=True)
class _Part:
    """One tensor of the merged model."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: tuple[Path, Tensor]
    """Where its numbers come from: the base's file or the adapter's."""
    module: str = ""
    """The adapter's module that is merged into it; empty where nothing is."""

    @property
    def bytes(self) -> int:
        return int(math.prod(self.shape) * _TYPES[self.dtype].itemsize)


class _Merger:
    """Gives the merged numbers of one tensor after the other."""

    def __init__(self, spec: MergeSpec) -> None:
        self.spec = spec
        self.adapter = spec.adapter / ADAPTER
        self.tensors = read_header(self.adapter)
        self.modules = module_parts(self.tensors)
        self.config = LoraConfig.from_pretrained(str(spec.adapter))
        # What the layer begins with is written over; `inference_mode` makes it need no gradients.
        self.config = replace(self.config, init_lora_weights=False, inference_mode=True)
        self.by_rows = 0

    def parts(self) -> list[_Part]:
        """All tensors of the merged model in the base's order."""
        found = [self._part(name, place) for name, place in base_tensors(self.spec.base).items()]
        known = {part.name for part in found}
        for module, parts in self.modules.items():
            for part, name in parts.items():
                whole = f"{module}.{part}"
                # An output embedding that is the input's no longer.
                if "lora_" not in part and part != "base_layer" and whole not in known:
                    found.append(self._part(whole, (self.adapter, self.tensors[name])))
        return found

    def _part(self, name: str, place: tuple[Path, Tensor]) -> _Part:
        module, _, part = name.rpartition(".")
        saved = self.modules.get(module, {})
        own = saved.get(part) or (saved.get("base_layer") if part == "weight" else None)
        if own is not None:
            place = (self.adapter, self.tensors[own])
        merged = module if part == "weight" and any("lora_" in kind for kind in saved) else ""
        dtype = self.spec.dtype if _TYPES[place[1].dtype].is_floating_point else place[1].dtype
        return _Part(name, place[1].shape, dtype, place, merged)

    def numbers(self, part: _Part) -> Iterator[bytes | memoryview]:
        """The tensor's bytes, in pieces; `GaveUp` when the limit is too low or numbers are bad."""
        path, tensor = part.source
        if not part.module:
            yield from _converted(path, tensor, _TYPES[part.dtype])
            return
        rows, columns = part.shape
        step = min(rows, _room(self.spec.memory_limit) // (columns * _WORKING_BYTES))
        if step < 1:
            raise GaveUp(
                f"{self.spec.memory_limit >> 20} MiB are too few to merge {part.name} "
                f"({rows} x {columns}) even row by row"
            )
        self.by_rows += step < rows
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            weight = _rows(path, tensor, start, stop).to(_TYPES[part.dtype])
            merged = self._merged(part.module, weight, start, stop)
            if not torch.isfinite(merged).all():
                raise GaveUp(f"{part.name} has numbers that are not finite once it is merged")
            yield _bytes_of(merged)

    def _merged(self, module: str, weight: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Some rows of a weight with the adapter in them, by peft's own layer."""
        held = self.modules[module]
        embedding = "lora_embedding_A" in held
        read = {kind: self._whole(name) for kind, name in held.items() if "lora_" in kind}
        rank = self.config.rank_pattern
        alpha = self.config.alpha_pattern
        rank_of = rank.get(get_pattern_key(rank.keys(), module), self.config.r)
        alpha_of = alpha.get(get_pattern_key(alpha.keys(), module), self.config.lora_alpha)
        layer: Linear | Embedding
        with torch.no_grad():
            rows, columns = weight.shape
            if embedding:
                inner = torch.nn.Embedding(rows, columns, device="meta")
                inner.weight = torch.nn.Parameter(weight, requires_grad=False)
                layer = Embedding(inner, "default", self.config, r=rank_of, lora_alpha=alpha_of)
                layer.lora_embedding_A["default"].data = read["lora_embedding_A"][:, start:stop]
                layer.lora_embedding_B["default"].data = read["lora_embedding_B"]
                layer.merge()
                return inner.weight.data
            plain = torch.nn.Linear(columns, rows, bias=False, device="meta")
            plain.weight = torch.nn.Parameter(weight, requires_grad=False)
            layer = Linear(plain, "default", self.config, r=rank_of, lora_alpha=alpha_of)
            layer.lora_A["default"].weight.data = read["lora_A"]
            layer.lora_B["default"].weight.data = read["lora_B"][start:stop]
            if "lora_magnitude_vector" in read:
                magnitude = read["lora_magnitude_vector"][start:stop]
                layer.lora_magnitude_vector["default"].weight.data = magnitude
            layer.merge()
            return plain.weight.data

    def _whole(self, name: str) -> torch.Tensor:
        """A tensor of the adapter, in float32 as peft holds those that are stored in 16 bit."""
        tensor = self.tensors[name]
        found = _rows(self.adapter, tensor, 0, tensor.shape[0])
        return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def _room(limit: int) -> int:
    """Bytes that may still be taken."""
    return limit - int(psutil.Process().memory_info().rss)


def _rows(path: Path, tensor: Tensor, start: int, stop: int) -> torch.Tensor:
    """Rows of a tensor in a file: read, not mapped, so that they are gone when they are dropped."""
    kind = _TYPES[tensor.dtype]
    sides = tensor.shape[1:]
    each = kind.itemsize
    for side in sides:
        each *= side
    with path.open("rb") as stream:
        stream.seek(tensor.start + start * each)
        body = bytearray((stop - start) * each)
        if stream.readinto(body) != len(body):
            raise GaveUp(f"{path.name} is cut off")
    return torch.frombuffer(body, dtype=kind).reshape(stop - start, *sides)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(torch.uint8).numpy()).cast("B")


def _converted(path: Path, tensor: Tensor, kind: torch.dtype) -> Iterator[bytes | memoryview]:
    """A tensor's bytes in another type, by pieces; as they are where the type is the same."""
    source = _TYPES[tensor.dtype]
    with path.open("rb") as stream:
        stream.seek(tensor.start)
        left = tensor.stop - tensor.start
        while left:
            piece = stream.read(min(left, _COPY_BYTES))
            if not piece:
                raise GaveUp(f"{path.name} is cut off")
            left -= len(piece)
            if source == kind:
                yield piece
            else:
                yield _bytes_of(torch.frombuffer(bytearray(piece), dtype=source).to(kind))


def _shards(parts: Sequence[_Part], most: int) -> list[list[_Part]]:
    """The tensors in files of at most `most` bytes; one that is larger has a file of its own."""
    found: list[list[_Part]] = [[]]
    size = 0
    for part in parts:
        if found[-1] and size + part.bytes > most:
            found.append([])
            size = 0
        found[-1].append(part)
        size += part.bytes
    return found


def _write_shard(stream: IO[bytes], parts: Sequence[_Part], merger: _Merger) -> None:
    """One safetensors file, of which only the piece at hand is in memory."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for part in parts:
        offsets = [place, place + part.bytes]
        header[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": offsets}
        place += part.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format's own alignment
    stream.write(struct.pack("<Q", len(text)) + text)
    for part in parts:
        for piece in merger.numbers(part):
            stream.write(piece)
    stream.flush()
    os.fsync(stream.fileno())


def merge(spec: MergeSpec) -> MergeResult:
    """Write the merged weights into `spec.out`; what was done. `GaveUp`, OSError."""
    torch.set_num_threads(max(1, os.cpu_count() or 1))
    merger = _Merger(spec)
    # By alignment, as the safetensors library orders them: wider types first.
    parts = sorted(merger.parts(), key=lambda part: -_TYPES[part.dtype].itemsize)
    shards = _shards(parts, spec.shard_bytes)
    names = ["model.safetensors"]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{at:05}-of-{count:05}.safetensors" for at in range(1, count + 1)]
    for name, members in zip(names, shards, strict=True):
        with (spec.out / name).open("xb") as stream:
            _write_shard(stream, members, merger)
    total = sum(part.bytes for part in parts)
    if len(shards) > 1:
        held = {p.name: name for name, members in zip(names, shards, strict=True) for p in members}
        index = {"metadata": {"total_size": total}, "weight_map": held}
        write_text(spec.out / "model.safetensors.index.json", json.dumps(index, indent=2))
    return MergeResult(
        changed=sum(bool(part.module) for part in parts),
        replaced=sum(part.source[0] == merger.adapter for part in parts),
        by_rows=merger.by_rows,
        bytes=total,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> _RSS_SHIFT,
    )


def main(argv: Sequence[str]) -> int:
    """Merge what the file `argv[0]` says, and write what came of it to `argv[1]`."""
    spec = MergeSpec.model_validate_json(Path(argv[0]).read_bytes())
    try:
        result = merge(spec)
    except GaveUp as error:
        result = MergeResult(error=str(error))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        for half in spec.out.glob("*.safetensors"):
            half.unlink()  # which makes room to say so
        result = MergeResult(error="the disk is full")
    write_text(Path(argv[1]), result.model_dump_json())
    return 1 if result.error else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
