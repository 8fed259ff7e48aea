"""Writes down what memory each phase of a training took: an ms-swift plugin for any training.

What it does: appends a line to a JSONL file for each phase of each optimizer step, with the keys
`phase`, `step`, `allocated`, `reserved`, `max_allocated`, `max_reserved`, `managed` (bytes) and
`device`. Phases: `load` (all before the first step, step 0), `forward` (with the loss), `backward`,
`optimizer_step`, `evaluation` and `save`; of several micro steps the highest is kept.

On a CUDA card the numbers are those of PyTorch's allocator, and `managed` is what bitsandbytes has
in paged optimizer states, of which the allocator does not know. On the CPU they are the process's
resident memory (`device` is `cpu`), with the peak of the process where Linux tells it.

What it saves: nothing. What it costs: peaks are read and reset a few times a micro step, without
waiting for the card. Of several processes the first one writes.

Settings: PALMSWIFT_MEMORY_LOG_FILE, the file (memory.jsonl in output_dir). A training that goes on
from a checkpoint appends to it. Serving, merging and inference are as without it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil
import torch
from swift.trainers.mixin import SwiftMixin
from transformers import TrainerCallback

VARIABLE = "PALMSWIFT_MEMORY_LOG_FILE"


class Reading(NamedTuple):
    """Bytes at one moment, and the most since the last reset."""

    allocated: int
    reserved: int
    max_allocated: int
    max_reserved: int


class Meter(Protocol):
    """Reads the memory of one device."""

    def read(self) -> Reading:
        """What is taken now, and was since `reset`."""

    def reset(self) -> None:
        """Begin a new peak."""


class CardMeter:
    """PyTorch's allocator on one card."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def read(self) -> Reading:
        """Counters of the allocator."""
        return Reading(
            torch.cuda.memory_allocated(self.device),
            torch.cuda.memory_reserved(self.device),
            torch.cuda.max_memory_allocated(self.device),
            torch.cuda.max_memory_reserved(self.device),
        )

    def reset(self) -> None:
        """Peaks start at what is taken now."""
        torch.cuda.reset_peak_memory_stats(self.device)


class ProcessMeter:
    """Resident memory of this process."""

    def read(self) -> Reading:
        """The peak is the kernel's own (VmHWM) on Linux, elsewhere what is resident now."""
        resident = psutil.Process().memory_info().rss
        peak = max(resident, _kernel_peak())
        return Reading(resident, resident, peak, peak)

    def reset(self) -> None:
        """Where the kernel allows it; otherwise peaks are those since the process began."""
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return


def _kernel_peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


class Managed:
    """Bytes of bitsandbytes' paged tensors, which live as long as the optimizer."""

    def __init__(self) -> None:
        self.bytes = 0
        if importlib.util.find_spec("bitsandbytes") is None:
            return
        functional: Any = importlib.import_module("bitsandbytes.functional")
        get_paged = functional.get_paged

        @functools.wraps(get_paged)
        def counted(*shape: int, **named: Any) -> Any:
            made = get_paged(*shape, **named)
            self.bytes += math.prod(shape) * made.element_size()
            return made

        functional.get_paged = counted


class MemoryLog(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Turns the Trainer's events into lines."""

    def __init__(self, path: Path, meter: Meter, device: str, managed: Managed) -> None:
        self.path = path
        self.meter = meter
        self.device = device
        self.managed = managed
        self.highest: dict[str, Reading] = {}

    def mark(self, phase: str) -> None:
        """End a phase; the next one's peak starts here."""
        now, before = self.meter.read(), self.highest.get(phase)
        self.meter.reset()
        peaks = (before.max_allocated, before.max_reserved) if before is not None else (0, 0)
        self.highest[phase] = now._replace(
            max_allocated=max(now.max_allocated, peaks[0]),
            max_reserved=max(now.max_reserved, peaks[1]),
        )

    def write(self, step: int) -> None:
        """Append the phases since the last writing."""
        lines = [
            {"phase": phase, "step": step, **reading._asdict(), "managed": self.managed.bytes}
            for phase, reading in self.highest.items()
        ]
        self.highest.clear()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({**line, "device": self.device}) + "\n" for line in lines)

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Everything so far: the model, the adapter, the optimizer."""
        self.mark("load")
        self.write(state.global_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """A micro step without an optimizer step."""
        self.mark("backward")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The last micro step of a step, its gradients clipped."""
        self.mark("backward")

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The weights are changed and the gradients let go."""
        self.mark("optimizer_step")
        self.write(state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """All validation rows."""
        self.mark("evaluation")
        self.write(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """A checkpoint is written."""
        self.mark("save")
        self.write(state.global_step)


def _install() -> None:
    """Act on `swift sft`, `pt` and `rlhf`; no other command trains."""
    train, managed = SwiftMixin.train, Managed()

    @functools.wraps(train)
    def train_logged(self: Any, *args: Any, **named: Any) -> Any:
        if self.is_world_process_zero():
            _follow(self, managed)
        return train(self, *args, **named)

    SwiftMixin.train = train_logged


def _follow(trainer: Any, managed: Managed) -> None:
    device = trainer.args.device
    named = os.environ.get(VARIABLE, "").strip()
    path = Path(named) if named else Path(trainer.args.output_dir) / "memory.jsonl"
    meter = CardMeter(device) if device.type == "cuda" else ProcessMeter()
    log = MemoryLog(path, meter, str(device), managed)
    trainer.add_callback(log)
    compute_loss = trainer.compute_loss

    @functools.wraps(compute_loss)
    def compute_loss_marked(model: Any, *args: Any, **named: Any) -> Any:
        loss = compute_loss(model, *args, **named)
        if model.training:
            log.mark("forward")
        return loss

    trainer.compute_loss = compute_loss_marked


_install()
