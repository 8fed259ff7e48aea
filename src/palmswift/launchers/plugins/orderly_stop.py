"""Ends a training in good order when its launcher asks: an ms-swift plugin for any training.

What it does: once a step has ended, a file `stepping` in the control folder says so; from then on a
file `stop` there ends the training at the end of the step in progress, with a checkpoint, and a
file `stopped` (JSON: step, checkpoint) is the answer. An evaluation is left after the batch in
progress; the plugin exact_resume then notes that it is due, and it is done when the training goes
on. The last step, and the last evaluation, are not cut short: the training ends by itself then.

With several processes each looks for the file and all decide together, at each step and each
batch of an evaluation, by the largest of their answers: none waits for another that has left.

What it saves: the steps since the last checkpoint. What it costs: a look for a file a step; with
several processes also a message of four bytes between them, on the CPU.

When it cannot act: within a step (GRPO writes its answers there). The launcher ends a training
that does not answer when it is asked a second time.

Settings: PALMSWIFT_CONTROL, the control folder, which the launcher sets; without it nothing is
done. Serving, merging and inference are as without it.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from swift.trainers.mixin import SwiftMixin
from swift.utils import get_logger
from transformers import Trainer, TrainerCallback

VARIABLE = "PALMSWIFT_CONTROL"
STEPPING, STOP, STOPPED = "stepping", "stop", "stopped"


class EvaluationCut(Exception):
    """The evaluation is left, for the training is to stop."""


class OrderlyStop(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Looks for the request, and has a checkpoint saved."""

    def __init__(self, trainer: Any, folder: Path | None) -> None:
        self.trainer = trainer
        self.folder = folder
        self.stepped = False
        self.decided = False
        self.leaving = False
        self.saved = -1
        self._group: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """All processes make the channel on which they decide."""
        if args.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Ask for a checkpoint, and nothing more, when the training is to stop."""
        if not self.stepped:
            self.stepped = True
            self._write(STEPPING, {"step": state.global_step})
        # At an epoch's end more may follow that belongs to it; one more step keeps that whole.
        ends_epoch = float(state.epoch).is_integer()
        if not self.asked() or ends_epoch or state.global_step >= state.max_steps:
            return
        self.leaving = True
        self.trainer.evaluation_due = control.should_evaluate
        control.should_evaluate, control.should_save = False, True

    def on_prediction_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Leave an evaluation within the training."""
        if self.stepped and state.global_step < state.max_steps and self.asked():
            raise EvaluationCut

    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Each process remembers which step has a checkpoint."""
        self.saved = state.global_step

    def asked(self) -> bool:
        """Whether any process has found the request; the same answer in all of them."""
        if not self.decided:
            found = self.folder is not None and (self.folder / STOP).exists()
            if self._group is not None:
                votes = torch.tensor([int(found)], dtype=torch.int32)
                operation = torch.distributed.ReduceOp.MAX
                torch.distributed.all_reduce(votes, operation, group=self._group)
                found = bool(votes.item())
            self.decided = found
        return self.decided

    @property
    def checkpoint(self) -> Path:
        """That of the step that was taken last."""
        step = self.trainer.state.global_step
        return Path(self.trainer.args.output_dir) / f"checkpoint-{step}"

    def leave(self) -> None:
        """Answer, and end this process: the checkpoint is whole, and all have been told of it."""
        step = self.trainer.state.global_step
        get_logger().info(f"orderly_stop: stopped after step {step}: {self.checkpoint}")
        self._write(STOPPED, {"step": step, "checkpoint": str(self.checkpoint)})
        raise SystemExit(0)

    def _write(self, name: str, document: dict[str, Any]) -> None:
        """By one process of each machine, for each has its own launcher."""
        if self.folder is None or int(os.environ.get("LOCAL_RANK", "0")) > 0:
            return
        temporary = self.folder / f".{name}"
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(self.folder / name)


def _install() -> None:
    """Act on `swift sft`, `pt` and `rlhf`; no other command trains."""
    train, evaluate = SwiftMixin.train, Trainer._evaluate
    log_and_save = SwiftMixin._maybe_log_save_evaluate

    @functools.wraps(train)
    def train_until_asked(self: Any, *args: Any, **named: Any) -> Any:
        said = os.environ.get(VARIABLE, "")
        # All processes of a training take part in each decision, or none does.
        if said or self.args.world_size > 1:
            self.orderly_stop = OrderlyStop(self, Path(said) if said else None)
            self.add_callback(self.orderly_stop)
        return train(self, *args, **named)

    @functools.wraps(evaluate)
    def evaluate_until_asked(self: Any, *args: Any, **named: Any) -> Any:
        try:
            return evaluate(self, *args, **named)
        except EvaluationCut:  # exact_resume has put the random numbers back
            _save_before_evaluation(self)

    @functools.wraps(log_and_save)
    def log_save_and_leave(self: Any, *args: Any, **named: Any) -> None:
        log_and_save(self, *args, **named)
        stop = getattr(self, "orderly_stop", None)
        if stop is not None and stop.leaving:
            stop.leave()

    SwiftMixin.train, Trainer._evaluate = train_until_asked, evaluate_until_asked
    SwiftMixin._maybe_log_save_evaluate = log_save_and_leave


def _save_before_evaluation(trainer: Any) -> None:
    """Save what the trainer was before its evaluation, note that this is due, and leave."""
    stop = trainer.orderly_stop
    trainer.evaluation_due = True
    if stop.saved == trainer.state.global_step:  # before an evaluation at the epoch's end
        trainer.save_gathered(str(stop.checkpoint))
    else:
        trainer._save_checkpoint(trainer.model, None)
        told = (trainer.args, trainer.state, trainer.control)
        trainer.control = trainer.callback_handler.on_save(*told)
    stop.leave()


_install()
