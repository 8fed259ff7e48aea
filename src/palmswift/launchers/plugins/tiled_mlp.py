"""Sends a row through each MLP a part at a time: an ms-swift plugin for long contexts.

What it does: an MLP works on each token alone, so its tokens can go through it in tiles. Forward
keeps only the MLP's input; backward computes each tile again and goes back through it at once, so
the wide matrices (gate, up, their product and its gradients) exist for one tile at a time.

What it saves: about 8 * intermediate * (tokens - tile) bytes with Liger, 10 * without it: 88 MiB
for each 1,024 tokens of Qwen3-8B beyond the tile. It lowers the peak of the layer, not that of the
loss, and saves nothing for rows that are no longer than the tile.

What it costs: one forward pass more through the MLPs, which is about a fifth of a step, and one
dequantisation of each NF4 matrix a tile: smaller tiles are slower.

Rounding: tiles give the same rows but for the kernel that the GPU picks for their size. Gradients
of trained weights are summed over tiles in fp32, in another order than without tiles: equal to
about 1e-6 in fp32. With LoRA dropout other numbers are drawn, of the same distribution.

When it cannot act, the training stops at its beginning: the setting is not a number of tokens, the
model has no MLP with gate_proj, up_proj and down_proj, or its weights are sharded (ZeRO-3, FSDP).

Settings: PALMSWIFT_TILED_MLP_TOKENS, tokens in a tile (1024). Serving, merging and inference are as
without it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from swift.trainers.mixin import SwiftMixin
from swift.utils import get_logger

VARIABLE = "PALMSWIFT_TILED_MLP_TOKENS"
DEFAULT_TILE = 1024

PARTS = ("gate_proj", "up_proj", "down_proj")
"""What an MLP is told by: those of Qwen, Llama, Mistral and their like."""


class _Tiles(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    """`run` over the rows of a matrix in tiles; `trained` are the weights that it trains."""

    @staticmethod
    def forward(
        ctx: Any, rows: Any, run: Callable[[Any], Any], tile: int, random: bool, *trained: Any
    ) -> Any:
        ctx.run, ctx.tile = run, tile
        ctx.autocast = _autocast_of(rows)
        ctx.save_for_backward(rows, *trained)
        ctx.states = []
        made = None
        for start in range(0, len(rows), tile):
            if random:
                ctx.states.append(_random_state(rows.device))
            with _autocast(ctx.autocast):
                part = run(rows[start : start + tile])
            if made is None:
                made = part.new_empty((len(rows), *part.shape[1:]))
            made[start : start + tile] = part
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        rows, *trained = ctx.saved_tensors
        above = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        sums = [_fp32_zeros(weight) for weight in trained]
        for index, start in enumerate(range(0, len(rows), ctx.tile)):
            part = rows[start : start + ctx.tile].detach().requires_grad_(above is not None)
            with torch.enable_grad(), _autocast(ctx.autocast), _replayed(ctx.states, index, part):
                made = ctx.run(part)
            wanted = [*([part] if above is not None else []), *trained]
            found = list(
                torch.autograd.grad(
                    made, wanted, gradient[start : start + ctx.tile], allow_unused=True
                )
            )
            if above is not None:
                above[start : start + ctx.tile] = found.pop(0)
            for total, one in zip(sums, found, strict=True):
                if one is not None:
                    total += one
        own = [total.to(weight.dtype) for total, weight in zip(sums, trained, strict=True)]
        return (above, None, None, None, *own)


def tile_mlps(model: Any, tile: int) -> int:
    """Let every MLP of `model` take `tile` tokens at a time; returns how many MLPs there are."""
    found = [module for module in model.modules() if all(hasattr(module, part) for part in PARTS)]
    if not found:
        raise ValueError(
            f"tiled_mlp: this model has no MLP with {', '.join(PARTS)}; "
            "take the plugin out of plugins"
        )
    for module in found:
        module.forward = _tiled(module, module.forward, tile)
    return len(found)


def tile_from_environment() -> int:
    """Tokens in a tile; `ValueError` when the variable does not hold a number above 0."""
    said = os.environ.get(VARIABLE, "").strip() or str(DEFAULT_TILE)
    if not said.isdecimal() or int(said) < 1:
        raise ValueError(f"tiled_mlp: {VARIABLE} is {said!r}; write a number of tokens, like 1024")
    return int(said)


def _tiled(module: Any, run: Callable[[Any], Any], tile: int) -> Callable[[Any], Any]:
    @functools.wraps(run)
    def forward(hidden: Any) -> Any:
        rows = hidden.reshape(-1, hidden.shape[-1])
        if len(rows) <= tile:
            return run(hidden)
        trained = [weight for weight in module.parameters() if weight.requires_grad]
        random = torch.is_grad_enabled() and any(
            isinstance(each, torch.nn.Dropout) and each.training and each.p > 0
            for each in module.modules()
        )
        made = _Tiles.apply(rows, run, tile, random, *trained)
        return made.reshape(*hidden.shape[:-1], made.shape[-1])

    return forward


def _fp32_zeros(weight: Any) -> Any:
    return torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))


def _autocast_of(tensor: Any) -> dict[str, Any]:
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):
        return {}
    return {
        "device_type": kind,
        "dtype": torch.get_autocast_dtype(kind),
        "enabled": torch.is_autocast_enabled(kind),
        # A cast made without gradients must not be found later where gradients are wanted.
        "cache_enabled": False,
    }


def _autocast(settings: dict[str, Any]) -> Any:
    return torch.autocast(**settings) if settings else contextlib.nullcontext()


def _random_state(device: Any) -> tuple[Any, Any]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if _is_cuda(device) else None


@contextlib.contextmanager
def _replayed(states: Sequence[tuple[Any, Any]], index: int, tensor: Any) -> Iterator[None]:
    """The random numbers of a tile's forward pass, where it drew any."""
    if not states:
        yield
        return
    cpu, card = states[index]
    devices = [tensor.device] if _is_cuda(tensor.device) else []
    with torch.random.fork_rng(devices):
        torch.set_rng_state(cpu)
        if card is not None:
            torch.cuda.set_rng_state(card, tensor.device)
        yield


def _is_cuda(device: Any) -> bool:
    return bool(device.type == "cuda")


def _install() -> None:
    """Act on `swift sft`, `pt` and `rlhf`; no other command trains."""
    train = SwiftMixin.train

    @functools.wraps(train)
    def train_tiled(self: Any, *args: Any, **named: Any) -> Any:
        tile = tile_from_environment()
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError("tiled_mlp: it is for whole weights, without deepspeed and fsdp")
        count = tile_mlps(self.model, tile)
        get_logger().info(f"tiled_mlp: {count} MLPs take {tile} tokens at a time")
        return train(self, *args, **named)

    SwiftMixin.train = train_tiled


_install()
