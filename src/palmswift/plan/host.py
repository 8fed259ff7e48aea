"""Host memory and disk that a training takes, in MiB, by name. Estimates, but for the weights."""

from __future__ import annotations

from palmswift.plan.memory import (
    MIB,
    TrainingRun,
    gradient_bytes,
    optimizer_of,
    trained_numbers,
)
from palmswift.plan.shapes import Shape
from palmswift.recipes.recipe import Recipe

_LIBRARIES_MIB = 3000
"""Python with torch, CUDA's libraries, transformers and ms-swift, and the rows of a small set."""

_WORKER_MIB = 700
"""One process that loads rows (dataloader_num_workers), in what it does not share."""

_LOGS_MIB = 64


def training_host_mib(recipe: Recipe, run: TrainingRun) -> dict[str, int]:
    """Host memory while it trains; pinned memory cannot be swapped out."""
    shape = run.shape
    workers = recipe.swift.get("dataloader_num_workers", 1)
    terms = {
        "libraries": _LIBRARIES_MIB,
        "loading_processes": _WORKER_MIB * (workers if isinstance(workers, int) else 1),
        # safetensors are mapped: pages of the file, given back when the system wants them
        "embedding": 0,
        "pinned_layer_inputs": 0,
    }
    if run.embedding_on_cpu and not shape.tied:
        terms["embedding"] = _mib(2 * shape.embedding_weights)
    if run.checkpoint_offload:
        # PyTorch rounds pinned memory up to a power of two
        one = 1 << (2 * shape.hidden * run.tokens - 1).bit_length()
        terms["pinned_layer_inputs"] = _mib(one * shape.layers)
    return {name: mib for name, mib in terms.items() if mib}


def merge_host_mib(run: TrainingRun) -> dict[str, int]:
    """Host memory of `swift export --merge_lora` on the CPU: 16-bit weights, and the adapter."""
    if run.full:
        return {}
    return {
        "libraries": _LIBRARIES_MIB,
        "weights": _mib(sixteen_bit_bytes(run.shape)),
        "adapter": _mib(gradient_bytes(run)),
    }


def disk_mib(recipe: Recipe, run: TrainingRun) -> dict[str, int]:
    """Disk: the download, the checkpoints kept and the one being written, what is merged."""
    kept = recipe.swift.get("save_total_limit")
    count = kept + 1 if isinstance(kept, int) else 3
    weights = sixteen_bit_bytes(run.shape)
    trained = trained_numbers(run)
    checkpoint = trained.bytes_each * trained.numbers + optimizer_of(run).state
    terms = {
        "model": 0 if recipe.model.source in ("local", "embedded") else _mib(weights),
        "checkpoints": count * _mib(checkpoint),
        "merged": _mib(weights) if recipe.export.merge and not run.full else 0,
        "logs_and_data": _LOGS_MIB,
    }
    return {name: mib for name, mib in terms.items() if mib}


def sixteen_bit_bytes(shape: Shape) -> int:
    """The model as it lies on a hub."""
    return 2 * shape.numbers


def _mib(size: int) -> int:
    return -(-size // MIB)
