"""What the plugins of src/palmswift/launchers/plugins keep on the card, in terms of fake tensors.

The plugins themselves move tensors between devices, of which fake tensors on the CPU have one.
Here a tensor in host memory is one that the tracker does not count.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from benchmarks.memory.tracker import Tracker


class HostEmbedding(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """An embedding whose table is on the host; its rows are made on the card."""

    def __init__(self, embedding: nn.Embedding, tracker: Tracker) -> None:
        super().__init__()
        self.weight = embedding.weight
        tracker.on_host(self.weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the weight's type."""
        return torch.empty(*ids.shape, self.weight.shape[1], dtype=self.weight.dtype)


class TiledMlp(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """An MLP that takes `tile` tokens at a time, and each again in the backward pass."""

    def __init__(self, mlp: nn.Module, tile: int) -> None:
        super().__init__()
        self.mlp = mlp
        self.tile = tile

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The outputs of all tiles."""
        return _Tiles.apply(states, self.mlp, self.tile)


class _Tiles(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, mlp: nn.Module, tile: int) -> torch.Tensor:
        ctx.mlp, ctx.tile = mlp, tile
        ctx.save_for_backward(states)
        out = torch.empty_like(states)
        for rows, target in zip(states.split(tile, 1), out.split(tile, 1), strict=True):
            target.copy_(mlp(rows))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (states,) = ctx.saved_tensors
        result = torch.empty_like(states)
        tiles = (tensor.split(ctx.tile, 1) for tensor in (states, gradient, result))
        for rows, of_rows, target in zip(*tiles, strict=True):
            leaf = rows.detach().requires_grad_(True)
            with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
                out = ctx.mlp(leaf)
            torch.autograd.backward(out, of_rows)
            target.copy_(leaf.grad)
        return result, None, None


class _Parked:
    """A layer's input: on the card while it travels or is used."""

    def __init__(self, tensor: torch.Tensor, before: _Parked | None, tracker: Tracker) -> None:
        self._tracker = tracker
        self._here: torch.Tensor | None = tensor.detach()
        self._host = tracker.on_host(torch.empty_like(tensor))
        self._before = weakref.ref(before) if before is not None else None

    def leave(self) -> None:
        self._here = None

    def fetch(self) -> torch.Tensor:
        if self._here is None:
            self._here = torch.empty_like(self._host)
        return self._here

    def bring(self) -> torch.Tensor:
        """The input; the one that is needed next begins its way."""
        tensor = self.fetch()
        self._here = None
        before = self._before() if self._before is not None else None
        if before is not None:
            before.fetch()
        return tensor


def offloaded_checkpoint(tracker: Tracker) -> Callable[..., Any]:
    """A reentrant checkpoint whose inputs wait on the host, two at a time on the card."""
    plain = functools.partial(checkpoint, use_reentrant=True, preserve_rng_state=False)
    last: weakref.ref[_Parked] | None = None

    def park(tensor: torch.Tensor) -> _Parked | torch.Tensor:
        nonlocal last
        if not tensor.is_floating_point():
            return tensor
        before = last() if last is not None else None
        parked = _Parked(tensor, before, tracker)
        if before is not None:
            before.leave()
        last = weakref.ref(parked)
        return parked

    def bring(parked: _Parked | torch.Tensor) -> torch.Tensor:
        return parked.bring() if isinstance(parked, _Parked) else parked

    def parked_checkpoint(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        with saved_tensors_hooks(park, bring):
            return plain(function, *args, **named)

    return parked_checkpoint
