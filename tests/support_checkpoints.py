"""Checkpoint folders as ms-swift leaves them, with real safetensors files of a few numbers.

Standard library only: the stand-in for `swift` writes its checkpoints with it.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

FORMATS = {"F32": "f", "F16": "e", "F64": "d", "U8": "B", "I64": "q"}


class Numbers(NamedTuple):
    """A tensor's type and numbers, in one dimension unless a shape is given."""

    dtype: str
    values: Sequence[float]
    shape: tuple[int, ...] | None = None


def packed(numbers: Numbers) -> bytes:
    """The bytes of a tensor."""
    if numbers.dtype == "BF16":  # the upper half of a float32
        return b"".join(struct.pack("<f", value)[2:] for value in numbers.values)
    if numbers.dtype.startswith("F8"):
        return bytes(int(value) for value in numbers.values)  # given as bits
    kind = FORMATS[numbers.dtype]
    values = [int(value) if kind in "Bq" else value for value in numbers.values]
    return struct.pack(f"<{len(values)}{kind}", *values)


def write_tensors(path: Path, tensors: Mapping[str, Numbers]) -> Path:
    """A safetensors file."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, numbers in tensors.items():
        body = packed(numbers)
        shape = numbers.shape if numbers.shape is not None else (len(numbers.values),)
        assert math.prod(shape) == len(numbers.values)
        header[name] = {
            "dtype": numbers.dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(body)],
        }
        data += body
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def adapter(value: float = 0.5) -> dict[str, Numbers]:
    """A LoRA adapter of one layer, its B matrix all `value`."""
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    return {
        f"{layer}.lora_A.weight": Numbers("F32", [0.1] * 8, (2, 4)),
        f"{layer}.lora_B.weight": Numbers("F32", [value] * 8, (4, 2)),
    }


def write_adapter(
    output: Path,
    step: int,
    tensors: Mapping[str, Numbers] | None = None,
    *,
    best: int | None = None,
    config: Mapping[str, object] | None = None,
) -> Path:
    """A checkpoint of an adapter, with all that going on from it needs."""
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "adapter_model.safetensors", adapter() if tensors is None else tensors)
    settings = {"peft_type": "LORA", "r": 2, "init_lora_weights": True, **(config or {})}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    write_state(folder, step, best)
    return folder


def write_model(
    output: Path, step: int, tensors: Mapping[str, Numbers], *, best: int | None = None
) -> Path:
    """A checkpoint of whole weights, with its tokenizer."""
    folder = output / f"checkpoint-{step}"
    write_base(folder, tensors)
    write_state(folder, step, best)
    return folder


def write_base(folder: Path, tensors: Mapping[str, Numbers]) -> Path:
    """A model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_state(folder: Path, step: int, best: int | None) -> None:
    """What the trainer keeps beside the weights."""
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data.pkl", "numbers")
    state = {"best_global_step": best, "global_step": step}
    (folder / "trainer_state.json").write_text(json.dumps(state))
