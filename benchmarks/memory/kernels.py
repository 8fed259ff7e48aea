"""Stand-ins for CUDA kernels: they allocate what the kernels allocate and compute nothing.

bitsandbytes 0.50 (autograd/_functions.py), PyTorch's flash attention and native_dropout, and
liger-kernel 0.8 (ops/*.py). What is kept for the backward pass is what those keep.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor


class Nf4Product(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    """`A @ W.t()` of an NF4 matrix, which is dequantised for it, forward and backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packed: Tensor, outputs: int, block: int) -> Tensor:
        inputs = rows.shape[-1]
        ctx.sizes = outputs, inputs, block
        scales = torch.empty(outputs * inputs // block, dtype=torch.float32)
        scales = scales + 1.0  # the nested scales' offset
        weight = torch.empty(outputs, inputs, dtype=rows.dtype)
        return rows @ weight.t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        outputs, inputs, block = ctx.sizes
        scales = torch.empty(outputs * inputs // block, dtype=torch.float32)
        weight = torch.empty(outputs, inputs, dtype=gradient.dtype)
        product = torch.matmul(gradient, weight)
        del scales
        return product, None, None, None


class Dropout(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """native_dropout: a result, and a boolean mask that is kept."""

    def forward(self, rows: Tensor) -> Tensor:
        return _Dropped.apply(rows)


class _Dropped(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        mask = torch.empty(rows.shape, dtype=torch.bool)
        dropped = torch.empty_like(rows)
        ctx.save_for_backward(mask)
        return dropped

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.empty_like(gradient)


class FlashAttention(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    """scaled_dot_product_attention's flash path, with fewer key heads than query heads."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, length, width = query.shape
        out = torch.empty(batch, length, heads, width, dtype=query.dtype).transpose(1, 2)
        sums = torch.empty(batch, heads, length, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, _ = ctx.saved_tensors
        batch, heads, length, width = query.shape
        padded = ceil(length / 128) * 128
        results = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        scratch = [
            torch.empty(batch, heads, padded, dtype=torch.float32),
            torch.empty(batch, padded, heads, width, dtype=torch.float32),  # dq is summed in fp32
        ]
        if heads != key.shape[1]:  # dk and dv of each query head, before they are summed
            expanded = batch, length, heads, width
            scratch += [torch.empty(expanded, dtype=query.dtype) for _ in range(2)]
        return results


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    """What transformers calls as its attention function."""
    return FlashAttention.apply(query, key, value).transpose(1, 2).contiguous(), None


class LigerNorm(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    """ops/rms_norm.py, in place in the backward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        normed = torch.empty_like(rows)
        scales = torch.empty(rows.shape[0], dtype=torch.float32)
        ctx.save_for_backward(rows, weight, scales)
        ctx.shape = states.shape
        return normed.view(states.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        _, weight, _ = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])  # may copy
        parts = torch.empty(_MULTIPROCESSORS, weight.numel(), dtype=torch.float32)
        summed = parts.sum(0).to(weight.dtype)
        return rows.view(ctx.shape), summed if ctx.needs_input_grad[1] else None


_MULTIPROCESSORS = 24  # of an RTX 4060: partial sums of the norm's gradient


class LigerSiluProduct(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    """ops/swiglu.py: the gradients are written over what was kept."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        product = torch.empty_like(gate)
        ctx.save_for_backward(gate, up)
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return gate, up


class LigerRotary(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    """ops/rope.py: copies where its input is not contiguous, then works in place."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        turned = query.transpose(1, 2).contiguous(), key.transpose(1, 2).contiguous()
        ctx.save_for_backward(cos.contiguous(), sin.contiguous())
        return turned[0].transpose(1, 2), turned[1].transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, None, None]:
        turned = query.transpose(1, 2).contiguous(), key.transpose(1, 2).contiguous()
        return turned[0].transpose(1, 2), turned[1].transpose(1, 2), None, None


class LigerLoss(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    """ops/fused_linear_cross_entropy.py: gradients are made with the loss, a chunk at a time."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor) -> Tensor:
        rows, hidden = states.shape
        vocab = head.shape[0]
        chunk = min(rows, 1 << (ceil(rows / ceil(vocab / hidden)) - 1).bit_length())
        of_states = torch.zeros_like(states)
        of_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        losses = torch.empty(rows, dtype=torch.float32)
        weight = head.to(torch.bfloat16)  # a copy of fp32 weights
        logits = torch.empty(chunk, vocab, dtype=torch.bfloat16)
        ctx.save_for_backward(*(t for t in (of_states, of_head) if t is not None))
        del weight, logits
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        saved = ctx.saved_tensors
        return saved[0], saved[1] if len(saved) > 1 else None
