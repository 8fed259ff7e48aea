"""How long a training step takes at the least: a roofline of the card, and shares of it reached.

An estimate. The shares are those that torchtune's published 2,413 tokens/s of an 8B QLoRA on an
RTX 4090 and common matrix kernels reach; nothing has been measured here.
"""

from __future__ import annotations

from typing import NamedTuple

from palmswift.plan.cards import Card
from palmswift.plan.memory import TrainingRun, lora_weights
from palmswift.plan.weights import linear_bytes

_MATMUL_SHARE = 0.80
_BANDWIDTH_SHARE = 0.85
_PCIE_SHARE = 0.80
_PASSES = 3
"""Forward, recomputed forward, backward: each goes through every weight once."""


class Speed(NamedTuple):
    """An estimate for the longest row; shorter rows pay more for each token."""

    seconds_per_step: float
    """One optimizer step: all of its micro steps."""
    tokens_per_second: float
    limit: str
    """What takes most of it: `compute`, `memory` or `pcie`."""


def speed_of(run: TrainingRun, card: Card) -> Speed:
    """Time of a step on `card`."""
    tokens = run.tokens
    compute = tokens * flops_per_token(run) / (card.tflops * 1e12 * _MATMUL_SHARE)
    memory = _PASSES * weight_traffic(run) / (card.gb_per_s * 1e9 * _BANDWIDTH_SHARE)
    travelling = 0
    if run.checkpoint_offload:  # out in the forward pass, back in the backward one
        travelling = 2 * 2 * run.shape.hidden * tokens * run.shape.layers
    pcie = travelling / (card.pcie_gb_per_s * 1e9 * _PCIE_SHARE)
    # Copies over PCIe go on beside the kernels; dequantising comes before each product.
    seconds = max(compute + memory, pcie)
    parts = {"compute": compute, "memory": memory, "pcie": pcie}
    return Speed(
        seconds_per_step=seconds * run.accumulation,
        tokens_per_second=tokens / seconds,
        limit=max(parts, key=lambda name: parts[name]),
    )


def flops_per_token(run: TrainingRun) -> float:
    """Floating point operations a token: matrix products, and causal attention.

    Two for each weight and pass: forward, recomputed, input gradient; the head is not recomputed.
    What is trained has a gradient of its own besides.
    """
    return matmul_flops_per_token(run) + attention_flops_per_token(run)


def matmul_flops_per_token(run: TrainingRun) -> float:
    """Without attention, and without the adapter where nothing else is trained."""
    shape = run.shape
    frozen = 6.0 * shape.linear_weights + 4.0 * shape.embedding_weights
    if run.full:
        return frozen + 2.0 * shape.linear_weights + 2.0 * shape.embedding_weights
    return frozen + 8.0 * lora_weights(run)


def attention_flops_per_token(run: TrainingRun) -> float:
    """Scores and values: twice forward, and a backward pass of two and a half times that."""
    half_the_row = run.length / 2
    return 4.5 * 4.0 * half_the_row * run.shape.query * run.shape.layers


def weight_traffic(run: TrainingRun) -> int:
    """Bytes through the card's memory for one pass: read packed, write bf16, read bf16."""
    shape = run.shape
    sixteen_bit = 2 * shape.linear_weights
    if not run.quantized:
        return sixteen_bit
    packed = sum(
        linear_bytes(linear, run.linear_kind, double_quant=run.double_quant)
        for linear in shape.linears.values()
    )
    return shape.layers * packed + 2 * sixteen_bit
