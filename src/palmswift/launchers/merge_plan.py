"""What a merge of an adapter into its base has to do, read from the files' headers alone.

palmswift merges by itself what peft's own layers can merge one weight at a time: LoRA, rsLoRA and
DoRA on linear layers and embeddings, and modules that the adapter saves whole. `swift export` holds
the whole model in memory for it, 16 GB for one of 8 billion weights; so what it alone can merge
(other tuners, weights that the checkpoint has under other names) is left to it, and only that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from palmswift.errors import InputError, Problem
from palmswift.launchers.checkpoint_files import (
    ADAPTER,
    missing_parts,
    read_document,
    weight_files,
)
from palmswift.launchers.tensor_file import Tensor, TornFile, read_header

PREFIX = "base_model.model."
"""What peft puts before a module's name in an adapter's file."""

_PARTS = (
    *("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lora_magnitude_vector.weight"),
    *("lora_embedding_A", "lora_embedding_B", "base_layer.weight"),
)
"""`base_layer` is the base's own weight, which peft stores beside an adapter on an embedding."""

_OTHER_FORMS = (
    *("alora_invocation_tokens", "arrow_config", "layer_replication", "monteclora_config"),
    *("target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config"),
    *("fan_in_fan_out", "lora_bias", "ensure_weight_tying"),
)
"""Settings of peft's LoraConfig under which a weight is not changed by A and B alone."""


class MergeSpec(BaseModel):
    """What the child is told (palmswift.launchers.merge_worker)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path
    adapter: Path
    out: Path
    dtype: str
    """The type of the merged weights as safetensors names it: `BF16`, `F16`, `F32`."""
    memory_limit: int
    """Bytes that the child may hold at most."""
    shard_bytes: int
    untied: bool
    """The adapter holds input and output embeddings of a model that shares them."""


class MergeResult(BaseModel):
    """What the child leaves in `merge.json` beside `out`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str = ""
    """Why it gave up, in words for the user; the rest is then empty."""
    changed: int = 0
    """Weights that A and B were added to."""
    replaced: int = 0
    """Weights that the adapter holds whole."""
    by_rows: int = 0
    """Weights that were merged a few rows at a time, as they are over the limit in one piece."""
    bytes: int = 0
    peak_mib: int = 0
    """The most resident memory that the child has held."""


def module_parts(names: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """An adapter's tensors: each module's name to what it has of it, and under which name.

    A module that is saved whole has the part `weight` (or `bias`).
    """
    found: dict[str, dict[str, str]] = {}
    for name in names:
        plain = name.removeprefix(PREFIX)
        for part in _PARTS:
            if plain.endswith(f".{part}"):
                module = plain.removesuffix(f".{part}")
                found.setdefault(module, {})[part.removesuffix(".weight")] = name
                break
        else:
            module, _, part = plain.rpartition(".")
            found.setdefault(module, {})[part] = name
    return found


def require_whole(base: Path, adapter: Path) -> None:
    """`InputError`, all faults at once, unless both can be merged from what is on the disk."""
    problems = [
        Problem(fault, str(adapter), "python launchers/runs.py show RUN lists its checkpoints")
        for fault in missing_parts(adapter, resumable=False)
    ]
    if base.is_dir():
        quantised = (read_document(base / "config.json") or {}).get("quantization_config")
        if quantised:
            what = f"its weights are stored quantised ({quantised.get('quant_method')})"
            remedy = "a merge into them loses what was trained: train on the 16-bit model"
            problems.append(Problem(what, str(base), remedy))
        if any(base.glob("*.safetensors")):
            problems += [
                Problem(fault, str(base), "fetch the model again")
                for fault in _damaged_weights(base)
            ]
    if problems:
        raise InputError("the adapter cannot be merged", problems)


def _damaged_weights(base: Path) -> Iterator[str]:
    for file in weight_files(base):
        try:
            read_header(file)
        except FileNotFoundError:
            yield f"{file.name} is missing"
        except (TornFile, OSError) as error:
            yield str(error)


def base_tensors(base: Path) -> dict[str, tuple[Path, Tensor]]:
    """The base's tensors by name, with their files, in the files' order."""
    return {
        name: (file, tensor)
        for file in weight_files(base)
        for name, tensor in read_header(file).items()
    }


def left_to_swift(base: Path, adapter: Path) -> str:
    """Why only `swift export` can merge these two; empty when the shards can be merged."""
    config = read_document(adapter / "adapter_config.json") or {}
    if not base.is_dir() or not any(base.glob("*.safetensors")):
        return "the base has no safetensors files here"
    if config.get("peft_type") != "LORA":
        return f"the adapter is of the kind {config.get('peft_type')}"
    if other := [name for name in _OTHER_FORMS if config.get(name)]:
        return f"the adapter has {', '.join(other)}"
    if config.get("bias", "none") != "none":
        return "the adapter trains biases"
    return _unlike(config, read_header(adapter / ADAPTER), base_tensors(base), tied(base))


def _unlike(
    config: Mapping[str, Any],
    adapter: Mapping[str, Tensor],
    base: Mapping[str, tuple[Path, Tensor]],
    shared: bool,
) -> str:
    """A part of the adapter that does not fit a weight of the base by itself; empty: all do."""
    modules = module_parts(adapter)
    whole = {name for name, parts in modules.items() if not any("lora_" in p for p in parts)}
    if shared:
        outer = {name for name in modules if name.rpartition(".")[2] in ("embed_tokens", "lm_head")}
        if outer and not (len(outer) == 2 and outer <= whole):
            return "the adapter is on embeddings that the input and the output share"
    for name, parts in modules.items():
        if name in whole:
            odd = [f"{name}.{part}" for part in parts if f"{name}.{part}" not in base]
            if odd and not (shared and name.rpartition(".")[2] == "lm_head"):
                return f"the base has no {odd[0]}"
            continue
        target = base.get(f"{name}.weight")
        if target is None or len(target[1].shape) != 2:
            return f"the base has no matrix {name}.weight"
        if _sides(parts, adapter) != target[1].shape:
            return f"{name} has another shape than the base's"
        if "lora_embedding_A" in parts and config.get("use_dora"):
            return "the adapter has DoRA on an embedding"
    return ""


def _sides(parts: Mapping[str, str], adapter: Mapping[str, Tensor]) -> tuple[int, int]:
    """Rows and columns of the weight that A and B are for."""
    if "lora_embedding_A" in parts:
        return adapter[parts["lora_embedding_A"]].shape[1], adapter[
            parts["lora_embedding_B"]
        ].shape[0]
    return adapter[parts["lora_B"]].shape[0], adapter[parts["lora_A"]].shape[1]


def tied(base: Path) -> bool:
    """Whether the model's input and output embeddings are one weight."""
    return bool((read_document(base / "config.json") or {}).get("tie_word_embeddings"))


def unties(base: Path, adapter: Path) -> bool:
    """Whether the adapter holds both embeddings whole, so that they are shared no longer."""
    return tied(base) and any(
        name.rpartition(".")[2] == "lm_head"
        for name in module_parts(read_header(adapter / ADAPTER))
    )
