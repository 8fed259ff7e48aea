"""What a GGUF file really is, read from the file: whole, complete, of the kind asked, finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from palmswift.export.manifest import Check
from palmswift.launchers.checkpoint_files import read_document, weight_files
from palmswift.launchers.tensor_file import read_header

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

_SCALES: Mapping[str, tuple[int, int]] = {
    **{"Q4_0": (0, 1), "Q5_0": (0, 1), "Q8_0": (0, 1), "Q4_1": (0, 2), "Q5_1": (0, 2)},
    **{"Q2_K": (80, 2), "Q3_K": (108, 1), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208, 1)},
}
"""Where a block's 16-bit scales stand: the first's byte, their number (ggml/src/ggml-common.h). All
else in a block is whole numbers, so a weight is finite when its scales are."""

_WHOLE = ("F32", "F16", "BF16")
_ROWS = 4096
"""Rows of a tensor that are looked at in one go: some MiB."""


class Wanted(NamedTuple):
    """What the file has to be."""

    kind: str
    template: str
    pre_tokenizer: str | None
    """llama.cpp's name; None where only its converter knows the tokenizer."""
    stops: Mapping[str, int]
    """The tokens that end an answer, by their text."""


class Looked(NamedTuple):
    """What was found, and whether it is what was wanted."""

    found: str
    """`q4_k_m`, with the types of the weights."""
    checks: list[Check]
    remarks: list[str]
    context: int
    """The longest context that the file names, in tokens."""


def look_at(file: Path, merged: Path, wanted: Wanted) -> Looked:
    """Read a GGUF file that was made of the model in `merged`."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except (OSError, ValueError, IndexError, KeyError) as error:
        detail = f"it cannot be read: {type(error).__name__}: {error}"[:200]
        return Looked("unreadable", [Check(name="whole", passed=False, detail=detail)], [], 0)
    types = _types(reader)
    checks = [
        _whole(file, reader),
        _architecture(reader, merged),
        _complete(reader, merged),
        _of_kind(reader, types, wanted.kind),
        _template(reader, wanted.template),
        _stop(reader, wanted.stops),
        _tokenizer(reader, merged, wanted.pre_tokenizer),
        _finite(reader),
    ]
    arch = _said(reader, "general.architecture")
    shown = ", ".join(f"{count} {name}" for name, count in types.items())
    return Looked(
        found=f"{_file_type(reader).lower()} ({shown})",
        checks=checks,
        remarks=_remarks(types, wanted.kind),
        context=int(_said(reader, f"{arch}.context_length") or 0),
    )


def _said(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _types(reader: GGUFReader) -> dict[str, int]:
    """How many matrices are of each type, the most first; vectors always stay whole."""
    counts: dict[str, int] = {}
    for tensor in _matrices(reader):
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _matrices(reader: GGUFReader) -> list[ReaderTensor]:
    """What is quantised at all; llama.cpp leaves the experts' router whole."""
    return [
        tensor
        for tensor in reader.tensors
        if len(tensor.shape) > 1 and not tensor.name.endswith("ffn_gate_inp.weight")
    ]


def _file_type(reader: GGUFReader) -> str:
    from gguf import LlamaFileType

    told = _said(reader, "general.file_type")
    try:
        return str(LlamaFileType(told).name).partition("_")[2]
    except ValueError:
        return "unknown"


def _whole(file: Path, reader: GGUFReader) -> Check:
    end = max(tensor.data_offset + tensor.n_bytes for tensor in reader.tensors)
    size = file.stat().st_size
    detail = f"{size:,} bytes" if size >= end else f"cut off: {size:,} of {end:,} bytes"
    return Check(name="whole", passed=size >= end, detail=detail)


def _architecture(reader: GGUFReader, merged: Path) -> Check:
    found = str(_said(reader, "general.architecture"))
    config = read_document(merged / "config.json") or {}
    asked = str(config.get("model_type")).replace("_", "")
    layers = _said(reader, f"{found}.block_count")
    right = found.replace("_", "") == asked and layers == config.get("num_hidden_layers")
    return Check(name="architecture", passed=right, detail=f"{found}, {layers} layers")


def _complete(reader: GGUFReader, merged: Path) -> Check:
    """Every number of the model is there: a head that is tied to the embeddings is stored once."""
    config = read_document(merged / "config.json") or {}
    headers = chain.from_iterable(read_header(file).items() for file in weight_files(merged))
    tied = bool(config.get("tie_word_embeddings"))
    asked = sum(
        math.prod(tensor.shape)
        for name, tensor in headers
        if not (tied and name == "lm_head.weight")
    )
    found = sum(
        int(tensor.n_elements)
        for tensor in reader.tensors
        if not (tied and tensor.name == "output.weight") and not tensor.name.startswith("rope_")
    )
    detail = f"{found:,} parameters in {len(reader.tensors)} tensors"
    if found != asked:
        detail += f"; the model has {asked:,}"
    return Check(name="complete", passed=found == asked, detail=detail)


def _of_kind(reader: GGUFReader, types: Mapping[str, int], kind: str) -> Check:
    """The kind that the file names, and no matrix left as it was."""
    named, asked = _file_type(reader), kind.upper()
    left = [name for name in types if name in _WHOLE] if asked not in _WHOLE else []
    wrong = [name for name in types if asked in _WHOLE and name not in (asked, "F32")]
    found = ", ".join(f"{count} {name}" for name, count in types.items())
    detail = f"{named.lower()}: {found}"
    if left:
        detail += f"; {' and '.join(left)} were not quantised"
    return Check(name="kind", passed=named == asked and not left and not wrong, detail=detail)


def _remarks(types: Mapping[str, int], kind: str) -> list[str]:
    """Types beside those that a K-quantisation is made of: rows that its blocks do not divide."""
    plain = sorted(
        name for name in types if name.startswith(("Q4_", "Q5_", "Q8_")) and "K" not in name
    )
    if "_k" not in kind or not plain:
        return []
    count = sum(types[name] for name in plain)
    return [
        f"{count} of {sum(types.values())} matrices have rows that 256 does not divide: "
        f"llama.cpp stored them as {' and '.join(plain)}, which takes more room"
    ]


def _template(reader: GGUFReader, template: str) -> Check:
    same = _said(reader, "tokenizer.chat_template") == template
    detail = "the training's" if same else "not the one that was written"
    return Check(name="chat template", passed=same, detail=detail)


def _stop(reader: GGUFReader, stops: Mapping[str, int]) -> Check:
    """llama.cpp ends at these two tokens and at what it knows by name, `<|im_end|>` among it."""
    ends = {_said(reader, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")} - {None}
    passed = bool(ends & set(stops.values()))
    wanted = ", ".join(f"{text} ({number})" for text, number in stops.items())
    told = ", ".join(map(str, sorted(ends))) or "nothing"
    return Check(name="stop token", passed=passed, detail=f"ends at {told}; trained: {wanted}")


def _tokenizer(reader: GGUFReader, merged: Path, pre: str | None) -> Check:
    found = str(_said(reader, "tokenizer.ggml.pre"))
    field = reader.get_field("tokenizer.ggml.tokens")
    count = 0 if field is None else len(field.data)
    config = read_document(merged / "config.json") or {}
    passed = count == config.get("vocab_size") and pre in (None, found)
    detail = f"{found}, {count:,} tokens"
    return Check(name="tokenizer", passed=passed, detail=detail)


def _finite(reader: GGUFReader) -> Check:
    bad = [tensor.name for tensor in reader.tensors if not _is_finite(tensor)]
    detail = f"not finite: {', '.join(bad[:3])}" if bad else "every weight"
    return Check(name="finite", passed=not bad, detail=detail)


def _is_finite(tensor: ReaderTensor) -> bool:
    import numpy

    return all(bool(numpy.isfinite(part).all()) for part in _numbers(tensor))


def _numbers(tensor: ReaderTensor) -> Iterator[Any]:
    """A tensor's numbers, or what scales them, by some thousand rows."""
    import numpy
    from gguf import GGML_QUANT_SIZES

    name = tensor.tensor_type.name
    rows = tensor.data.reshape(-1, tensor.data.shape[-1])
    size = GGML_QUANT_SIZES[tensor.tensor_type][1]
    for start in range(0, len(rows), _ROWS):
        part = numpy.ascontiguousarray(rows[start : start + _ROWS])
        if name in ("F32", "F16"):
            yield part
        elif name == "BF16":
            yield (part.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
        elif name in _SCALES:
            at, count = _SCALES[name]
            blocks = part.reshape(-1, size)[:, at : at + 2 * count]
            yield numpy.ascontiguousarray(blocks).view(numpy.float16)
        else:
            from gguf.quants import dequantize

            yield dequantize(part, tensor.tensor_type)
