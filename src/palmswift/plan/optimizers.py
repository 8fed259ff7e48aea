"""Bytes of the optimizers that transformers offers by name: state, and temporaries of a step."""

from __future__ import annotations

from typing import Literal, NamedTuple

Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "paged_adamw",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "lion_8bit",
    "lion_32bit",
    "paged_lion_8bit",
    "paged_lion_32bit",
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
    bytes a number and 8 bytes a block of 256, and Lion has one moment of the two
    (bitsandbytes/optim/optimizer.py).
    """
    numbers, each = trained.numbers, trained.bytes_each
    small = numbers - trained.embedding
    eight_bit = 2 * small + 8 * small // 256 + 8 * trained.embedding
    if name == "adamw_torch":
        return OptimizerMemory(2 * each * numbers, each * numbers)
    if name == "adamw_torch_fused":
        return OptimizerMemory(2 * each * numbers, 0)
    if name == "sgd":
        return OptimizerMemory(0, 0)
    state = eight_bit if name.endswith("8bit") else 8 * numbers
    return OptimizerMemory(state // 2 if "lion" in name else state, 0)
