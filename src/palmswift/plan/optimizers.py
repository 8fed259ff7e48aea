"""Bytes of the optimizers that transformers offers by name: state, and temporaries of a step."""

from __future__ import annotations

from typing import Literal, NamedTuple

Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "sgd",
]


class Trained(NamedTuple):
    """The numbers that an optimizer moves."""

    numbers: int
    bytes_each: int
    embedding: int = 0
    """How many of them belong to an embedding: transformers' Trainer keeps those of 8-bit
    optimizers in 32 bits (create_optimizer, register_module_override)."""


class OptimizerMemory(NamedTuple):
    """Bytes of an optimizer's state, and of its temporaries while it steps."""

    state: int
    temporaries: int


def optimizer_memory(name: Optimizer, trained: Trained) -> OptimizerMemory:
    """Bytes of the optimizer. Paged state is counted, since it lies on the GPU when touched.

    torch's AdamW keeps two moments in the parameter's type; bitsandbytes' 8-bit one keeps two
    bytes a number and 8 bytes a block of 256 (bitsandbytes/optim/optimizer.py).
    """
    numbers, each = trained.numbers, trained.bytes_each
    small = numbers - trained.embedding
    eight_bit = 2 * small + 8 * small // 256 + 8 * trained.embedding
    return {
        "adamw_torch": OptimizerMemory(2 * each * numbers, each * numbers),
        "adamw_torch_fused": OptimizerMemory(2 * each * numbers, 0),
        "adamw_8bit": OptimizerMemory(eight_bit, 0),
        "paged_adamw_32bit": OptimizerMemory(8 * numbers, 0),
        "paged_adamw_8bit": OptimizerMemory(eight_bit, 0),
        "sgd": OptimizerMemory(0, 0),
    }[name]
