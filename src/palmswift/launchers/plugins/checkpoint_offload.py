"""Keeps the inputs of checkpointed layers in host memory: an ms-swift plugin for long contexts.

What it does: gradient checkpointing keeps each layer's input until the backward pass. With this
plugin the input is copied to pinned host memory while the next layer computes, and is fetched back
while the layer after it goes backward, both on a CUDA stream of their own. The copies are the same
bits, so losses and gradients are too.

What it saves: 2 * hidden * tokens * (layers - 2) bytes of GPU memory: 272 MiB for each 1,024 tokens
of Qwen3-8B. Two inputs stay on the card: the one in use and the one that travels.

What it costs: 4 * hidden * tokens * layers bytes over PCIe a micro step, hidden behind the layers'
work unless the bus is slow, and as much pinned host memory as it saves (each input rounded up to a
power of two by PyTorch). transformers' own `gradient_checkpointing_kwargs: {offload: true}` copies
the same on the stream that computes, which waits for it.

When it cannot act, the training stops at its beginning: gradient_checkpointing is off, the model is
spread over several devices, or the device is neither a CUDA card nor the CPU (where inputs are
copied to other memory of the CPU, which saves nothing and serves for tests).

Settings: none. Serving, merging and inference are as without it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from swift.trainers.mixin import SwiftMixin
from swift.utils import get_logger
from torch.autograd.graph import saved_tensors_hooks
from transformers import TrainerCallback


class Copies(Protocol):
    """Moves tensors between a device and host memory."""

    def buffer(self, size: int) -> torch.Tensor:
        """`size` bytes of host memory."""

    def start(self, target: torch.Tensor, source: torch.Tensor) -> Any:
        """Copy when the device has made `source`; what comes back is given to `wait`."""

    def wait(self, copy: Any) -> None:
        """Let what the device does from now on come after that copy."""


class CudaCopies:
    """Copies on a stream of their own, beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def buffer(self, size: int) -> torch.Tensor:
        """Pinned memory, without which a copy would not run beside the computation."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            raise RuntimeError(
                f"checkpoint_offload: no {size >> 20} MiB more of pinned host memory can be had; "
                "shorten max_length, close what uses memory, or give WSL2 more (.wslconfig)"
            ) from error

    def start(self, target: torch.Tensor, source: torch.Tensor) -> Any:
        """Both sides are ordered after the work so far: `target` may be memory just given back."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
        return self.stream.record_event()

    def wait(self, copy: Any) -> None:
        """The device waits, and Python does not."""
        torch.cuda.current_stream(self.device).wait_event(copy)


class PlainCopies:
    """Copies within the memory of the CPU, done when `start` returns."""

    def buffer(self, size: int) -> torch.Tensor:
        """Ordinary memory."""
        return torch.empty(size, dtype=torch.uint8)

    def start(self, target: torch.Tensor, source: torch.Tensor) -> Any:
        """Copy now."""
        target.copy_(source)

    def wait(self, copy: Any) -> None:
        """There is nothing to wait for."""


class Parked:
    """One layer's input: on the device, in host memory, or on the way."""

    def __init__(self, inputs: LayerInputs, tensor: torch.Tensor, before: Parked | None) -> None:
        self._inputs = inputs
        self._shape, self._dtype, self._device = tensor.shape, tensor.dtype, tensor.device
        self._buffer = inputs.take(tensor.nbytes)
        self._host = self._buffer[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        self._here: torch.Tensor | None = tensor.detach()
        self._copy = inputs.copies.start(self._host, self._here)
        # Weak: a graph that is dropped without a backward pass lets its inputs go.
        self._before = weakref.ref(before) if before is not None else None

    def leave(self) -> None:
        """Give the device's memory back, once the copy to the host is done."""
        self._inputs.copies.wait(self._copy)
        self._here = None

    def fetch(self) -> torch.Tensor:
        """Begin to bring it back, unless it is on the device."""
        if self._here is None:
            self._here = torch.empty(self._shape, dtype=self._dtype, device=self._device)
            self._copy = self._inputs.copies.start(self._here, self._host)
        return self._here

    def bring(self) -> torch.Tensor:
        """The tensor for the backward pass; the one that is needed next begins its way."""
        tensor = self.fetch()
        self._inputs.copies.wait(self._copy)
        self._here = None
        before = self._before() if self._before is not None else None
        if before is not None:
            before.fetch()
        return tensor

    def __del__(self) -> None:
        if not hasattr(self, "_buffer"):  # there was no memory for it
            return
        if getattr(self, "_here", None) is not None and hasattr(self, "_copy"):
            # A pass was given up: nothing may take the device's memory while it is copied.
            self._inputs.copies.wait(self._copy)
        # Its next copy runs on the same stream as the last one from it, so it may be used at once.
        self._inputs.free.append(self._buffer)


class LayerInputs:
    """The inputs of a model's checkpointed layers, and the host memory that they wait in."""

    def __init__(self, copies: Copies) -> None:
        self.copies = copies
        self.free: list[torch.Tensor] = []
        self._last: weakref.ref[Parked] | None = None

    def take(self, size: int) -> torch.Tensor:
        """Host memory of at least `size` bytes; what became too small is given back for it."""
        fitting = [index for index, buffer in enumerate(self.free) if buffer.nbytes >= size]
        if fitting:
            return self.free.pop(min(fitting, key=lambda index: self.free[index].nbytes))
        if self.free:
            self.free.pop()
        return self.copies.buffer(size)

    def park(self, tensor: torch.Tensor) -> Parked | torch.Tensor:
        """Begin to move a layer's input to the host; the one before it leaves the device."""
        if not tensor.is_floating_point():
            return tensor
        before = self._last() if self._last is not None else None
        parked = Parked(self, tensor, before)
        if before is not None:
            before.leave()
        self._last = weakref.ref(parked)
        return parked

    def bring(self, parked: Parked | torch.Tensor) -> torch.Tensor:
        """What `park` was given, on its device."""
        return parked.bring() if isinstance(parked, Parked) else parked


def offload(model: Any, copies: Copies) -> LayerInputs:
    """Let all layers of `model` that are checkpointed keep their inputs in host memory."""
    layers = [
        module
        for module in model.modules()
        if getattr(module, "gradient_checkpointing", False)
        and hasattr(module, "_gradient_checkpointing_func")
        # A whole model has the mark as well, and hands the work to its layers.
        and not hasattr(module, "get_input_embeddings")
    ]
    if not layers:
        raise ValueError(
            "checkpoint_offload: no layer is checkpointed; set gradient_checkpointing: true, "
            "or take the plugin out of plugins"
        )
    inputs = LayerInputs(copies)
    for layer in layers:
        layer._gradient_checkpointing_func = _parking(layer._gradient_checkpointing_func, inputs)
    return inputs


def copies_for(device: torch.device) -> Copies:
    """How tensors leave `device`; `ValueError` where nothing would be saved."""
    if device.type == "cuda":
        return CudaCopies(device)
    if device.type == "cpu":
        return PlainCopies()
    raise ValueError(f"checkpoint_offload: it is for CUDA cards, and this is {device.type}")


def _parking(checkpoint: Callable[..., Any], inputs: LayerInputs) -> Callable[..., Any]:
    @functools.wraps(checkpoint)
    def parked(*args: Any, **named: Any) -> Any:
        # What a checkpoint saves are its inputs; what is computed inside is not seen by the hooks.
        with saved_tensors_hooks(inputs.park, inputs.bring):
            return checkpoint(*args, **named)

    return parked


class Offloading(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Acts when the Trainer has switched checkpointing on, and lets the memory go at the end."""

    inputs: LayerInputs | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Offload the model that is trained."""
        model = named["model"]
        if len({*getattr(model, "hf_device_map", {}).values()}) > 1:
            raise ValueError("checkpoint_offload: it is for a model on one device")
        self.inputs = offload(model, copies_for(args.device))
        get_logger().info("checkpoint_offload: layer inputs wait in host memory")

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Give the pinned memory back."""
        if self.inputs is not None:
            self.inputs.free.clear()


def _install() -> None:
    """Act on `swift sft`, `pt` and `rlhf`; no other command trains."""
    train = SwiftMixin.train

    @functools.wraps(train)
    def train_offloaded(self: Any, *args: Any, **named: Any) -> Any:
        self.add_callback(Offloading())
        return train(self, *args, **named)

    SwiftMixin.train = train_offloaded


_install()
