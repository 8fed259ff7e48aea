"""Bytes of a model's frozen or trained weights on the GPU: NF4, 8-bit, bf16 or fp32."""

from __future__ import annotations

from math import ceil
from typing import Literal, NamedTuple

from palmswift.plan.shapes import Linear, Shape

ALLOCATION = 512
"""The caching allocator's granularity in bytes."""

BLOCK = 64
"""Weights that share one NF4 scale."""

LinearKind = Literal["nf4", "int8", "bf16", "fp32"]
"""How the linear layers of the decoder are kept; embedding, head and norms stay 16-bit."""


class WeightBytes(NamedTuple):
    """Where a model's bytes are."""

    linear_layers: int
    embedding: int
    """0 where the head is the embedding (tied)."""
    head: int
    norms: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def weights_of(shape: Shape, kind: LinearKind, *, double_quant: bool = True) -> WeightBytes:
    """Bytes of the whole model, as bitsandbytes and the caching allocator lay them out.

    What is no linear layer of the decoder is kept in bf16 (transformers' get_keys_to_not_convert
    leaves the head out, and ms-swift casts nothing to fp32), or in fp32 when the rest is.
    """
    number = 4 if kind == "fp32" else 2
    layer = sum(
        linear_bytes(linear, kind, double_quant=double_quant) for linear in shape.linears.values()
    )
    norms = number * _halves(shape)
    embedding = number * shape.embedding_weights
    return WeightBytes(
        linear_layers=shape.layers * layer,
        embedding=0 if shape.tied else embedding,
        head=embedding,
        norms=norms,
    )


def linear_bytes(linear: Linear, kind: LinearKind, *, double_quant: bool = True) -> int:
    """One matrix with its scales."""
    if kind == "nf4":
        return _nf4_bytes(linear, double_quant)
    if kind == "int8":  # bitsandbytes LLM.int8(): a byte a weight, an fp32 scale a row
        return rounded(linear.weights) + rounded(4 * linear.outputs)
    return (4 if kind == "fp32" else 2) * linear.weights


def dequantised_bytes(shape: Shape, scale_copies: int) -> int:
    """bf16 copy of the largest NF4 matrix, with `scale_copies` of its scales in fp32."""
    weights = shape.hidden * shape.intermediate
    return 2 * weights + scale_copies * 4 * weights // BLOCK


def rounded(size: int) -> int:
    """The size that the caching allocator hands out for `size` bytes."""
    return ceil(size / ALLOCATION) * ALLOCATION


def _halves(shape: Shape) -> int:
    """Numbers of all norms, each tensor rounded up as 16-bit ones are."""
    per_layer = rounded(2 * shape.hidden) + ALLOCATION  # two wide ones; q_norm, k_norm are tiny
    return shape.layers * per_layer + rounded(2 * shape.hidden) // 2


def _nf4_bytes(linear: Linear, double_quant: bool) -> int:
    """One NF4 matrix of bitsandbytes: packed weights, code book, scales."""
    blocks = ceil(linear.weights / BLOCK)
    packed = rounded(ceil(linear.weights / 2)) + ALLOCATION
    if not double_quant:
        return packed + rounded(4 * blocks)
    nested = rounded(4 * ceil(blocks / 256)) + 1024 + ALLOCATION  # scales of scales, code, offset
    return packed + rounded(blocks) + nested
