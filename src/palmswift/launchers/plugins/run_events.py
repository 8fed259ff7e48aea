"""Tells what a training is at and how fast it goes: an ms-swift plugin for any training.

What it does, in the first of all processes alone:

- appends a line to run_events.jsonl in output_dir when the training comes to another phase
  (`phase`, `step`, `time`: download, load, encode, prepare, train, evaluate, save, end), and when a
  checkpoint is written (`checkpoint`, its name; `step`, `seconds`);
- puts `tokens_per_second`, `supervised_tokens_per_second` and `memory_mib` into what ms-swift logs,
  so that they stand in logging.jsonl, TensorBoard and every other report, but not in the
  trainer_state.json of checkpoints;
- keeps heartbeat.json up to date: the phase, the step, how far it is in it, and when that was.

Tokens are those of this process's batches times the number of processes; `supervised` are those
that the loss counts. Memory is the most that PyTorch has reserved on a card, or, on the CPU, that
the process has had resident.

Plugins that lie beside this one are left out of the args.json that goes into checkpoints: they are
for training alone, and a checkpoint that named them could be loaded nowhere else.

What it saves: nothing. What it costs: two sums over a batch's labels, without waiting for the card,
and a write of 160 bytes five times a second at most.

Settings: none. Serving, merging and inference are as without it.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from swift.arguments.base_args.base_args import BaseArguments
from swift.hub.hub import HFHub, MSHub
from swift.pipelines.train.sft import SwiftSft
from swift.trainers.mixin import SwiftMixin
from transformers import TrainerCallback

_BEAT_EVERY = 0.2
_BEAT_BYTES = 160
_IGNORED = -100
"""The label that has no loss."""


class Teller:
    """Appends to run_events.jsonl; what comes before output_dir is known waits for it."""

    def __init__(self) -> None:
        self.phase = ""
        self._path: Path | None = None
        self._waiting: list[dict[str, Any]] = []

    def into(self, folder: Path) -> None:
        """From now on there is a folder to write to."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "run_events.jsonl"
        self.tell()

    def enter(self, phase: str, step: int = 0) -> str:
        """Another phase begins; the one that it interrupts."""
        before, self.phase = self.phase, phase
        if before != phase:
            self.tell(phase=phase, step=step)
        return before

    def tell(self, **values: Any) -> None:
        """Write a line. A full disk is for ms-swift's own writing to complain of."""
        if values:
            self._waiting.append({**values, "time": round(time.time(), 3)})
        if self._path is None:
            return
        lines = "".join(json.dumps(each) + "\n" for each in self._waiting)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError:
            return
        self._waiting.clear()


class Heartbeat:
    """One line of fixed width that is written over and over."""

    def __init__(self, path: Path) -> None:
        self._file: int | None = None
        self._due = 0.0
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError:
            return

    def beat(self, phase: str, step: int, done: int = 0, total: int = 0) -> None:
        """It goes on: `done` of `total` within the step or the evaluation."""
        now = time.monotonic()
        if self._file is None or now < self._due:
            return
        self._due = now + _BEAT_EVERY
        text = f'{{"phase":"{phase}","step":{step},"done":{done},"total":{total}'
        line = f'{text},"time":{time.time():.1f}}}'.ljust(_BEAT_BYTES - 1) + "\n"
        try:
            os.pwrite(self._file, line.encode(), 0)
        except OSError:
            return


class RunEvents(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Counts tokens, and adds what they come to to what is logged."""

    def __init__(self, teller: Teller, heart: Heartbeat, device: torch.device, world: int) -> None:
        self.teller = teller
        self.heart = heart
        self.device = device
        self.world = world
        self.step = 0
        self._micro = self._asked = 0
        self._tokens: Any = 0
        self._supervised: Any = 0
        self._since = time.monotonic()
        self._paused = 0.0

    def count(self, inputs: Any) -> None:
        """Add a batch's tokens; sums stay on the card, for a look at them would wait for it."""
        for name, tensor in _tensors(inputs):
            if name.endswith("labels"):
                self._supervised = self._supervised + tensor.ne(_IGNORED).sum()
            elif name.endswith("completion_mask"):
                self._supervised = self._supervised + tensor.sum()
            elif name.endswith("input_ids"):
                self._tokens = self._tokens + tensor.numel()
            elif name.endswith("attention_mask") and tensor.dim() == 2:
                # Padding was counted with the ids.
                self._tokens = self._tokens - (tensor == 0).sum()

    def paused(self, seconds: float) -> None:
        """Evaluations and saving are no time in which tokens were trained on."""
        self._paused += seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Everything is ready."""
        self.step = state.global_step
        self._since, self._paused = time.monotonic(), 0.0
        self.teller.enter("train", self.step)
        self.heart.beat("train", self.step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """A micro step without an optimizer step."""
        self._micro += 1
        self.heart.beat("train", state.global_step, self._micro, args.gradient_accumulation_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The weights have changed."""
        self.step, self._micro = state.global_step, 0
        self.heart.beat("train", self.step)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **named: Any
    ) -> None:
        """A batch of validation rows."""
        self._asked += 1
        total = len(eval_dataloader) if hasattr(eval_dataloader, "__len__") else 0
        self.heart.beat("evaluate", state.global_step, self._asked, total)

    def on_evaluate(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """All validation rows."""
        self._asked = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
        """Speeds and memory go into what ms-swift is about to write."""
        if not isinstance(logs, dict) or "loss" not in logs:
            return
        now = time.monotonic()
        seconds = now - self._since - self._paused
        tokens, supervised = int(self._tokens), int(self._supervised)
        if seconds > 0 and tokens:
            logs["tokens_per_second"] = round(tokens * self.world / seconds, 1)
            logs["supervised_tokens_per_second"] = round(supervised * self.world / seconds, 1)
        logs["memory_mib"] = _memory_mib(self.device)
        self._tokens, self._supervised, self._since, self._paused = 0, 0, now, 0.0


def _tensors(inputs: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of a batch by name, whichever of ms-swift's trainers it is of."""
    if isinstance(inputs, list):
        inputs = inputs[0] if len(inputs) == 1 else {}
    if not isinstance(inputs, dict):
        return
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            yield name, value
        elif name == "model_inputs":
            yield from _tensors(value)
        elif name == "grpo_batch":
            yield "completion_mask", value.completion_mask


def _memory_mib(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device)) >> 20
    if sys.platform == "linux":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return psutil.Process().memory_info().rss >> 20


def _around(phase: str, function: Callable[..., Any], teller: Teller, after: str = "") -> Any:
    """`function`, told as a phase; afterwards `after` is, or what was before."""

    @functools.wraps(function)
    def told(*args: Any, **named: Any) -> Any:
        before = teller.enter(phase)
        result = function(*args, **named)
        teller.enter(after or before)
        return result

    return told


def _follow(trainer: Any, teller: Teller) -> None:
    """Have one trainer tell what it does."""
    output = Path(trainer.args.output_dir)
    teller.into(output)
    events = RunEvents(
        teller, Heartbeat(output / "heartbeat.json"), trainer.args.device, trainer.args.world_size
    )
    # Before those that write the logs down.
    trainer.callback_handler.callbacks.insert(0, events)
    compute_loss, evaluate, save = trainer.compute_loss, trainer.evaluate, trainer._save_checkpoint

    @functools.wraps(compute_loss)
    def compute_loss_counted(model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        if model.training:
            events.count(inputs)
        return compute_loss(model, inputs, *args, **named)

    def interrupting(phase: str, function: Any) -> Any:
        @functools.wraps(function)
        def told(*args: Any, **named: Any) -> Any:
            step, begun = trainer.state.global_step, time.monotonic()
            before = teller.enter(phase, step)
            events.heart.beat(phase, step)
            result = function(*args, **named)
            seconds = time.monotonic() - begun
            events.paused(seconds)
            if phase == "save":
                named_so = f"checkpoint-{step}"
                teller.tell(checkpoint=named_so, step=step, seconds=round(seconds, 3))
            teller.enter(before, step)
            return result

        return told

    trainer.compute_loss = compute_loss_counted
    trainer.evaluate = interrupting("evaluate", evaluate)
    trainer._save_checkpoint = interrupting("save", save)


def _install() -> None:
    """Act on `swift sft`, `pt` and `rlhf`; no other command trains."""
    teller, train = Teller(), SwiftMixin.train
    teller.enter("load")

    @functools.wraps(train)
    def train_told(self: Any, *args: Any, **named: Any) -> Any:
        if not self.is_world_process_zero():
            return train(self, *args, **named)
        _follow(self, teller)
        result = train(self, *args, **named)
        teller.enter("end", self.state.global_step)
        return result

    SwiftMixin.train = train_told
    if os.environ.get("RANK", "0") not in ("0", "-1"):
        return
    _leave_out_shipped_plugins()
    for hub in (MSHub, HFHub):
        told = _around("download", hub.download_model, teller)
        hub.download_model = staticmethod(told)
    for pipeline in (SwiftSft, *SwiftSft.__subclasses__()):
        if "_prepare_model_tokenizer" in vars(pipeline):
            _announced(pipeline, "_prepare_model_tokenizer", "load", teller)
        if "_prepare_dataset" in vars(pipeline):
            pipeline._prepare_dataset = _around(
                "encode", pipeline._prepare_dataset, teller, after="prepare"
            )


def _leave_out_shipped_plugins() -> None:
    save, here = BaseArguments.save_args, Path(__file__).parent

    @functools.wraps(save)
    def save_args(self: Any, *args: Any, **named: Any) -> Any:
        plugins = self.external_plugins
        self.external_plugins = [each for each in plugins if Path(each).parent != here]
        try:
            return save(self, *args, **named)
        finally:
            self.external_plugins = plugins

    BaseArguments.save_args = save_args


def _announced(pipeline: Any, name: str, phase: str, teller: Teller) -> None:
    """Say where to write as soon as ms-swift has read its arguments."""
    function = getattr(pipeline, name)

    @functools.wraps(function)
    def told(self: Any, *args: Any, **named: Any) -> Any:
        teller.into(Path(self.args.output_dir))
        teller.enter(phase)
        return function(self, *args, **named)

    setattr(pipeline, name, told)


_install()
