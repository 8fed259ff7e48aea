"""Lets a training meet a fault at a chosen moment: an ms-swift plugin for tests and benchmarks.

`PALMSWIFT_FAULT` names the faults, `WHAT@WHERE` with spaces between: `kill@7` (SIGKILL at the end
of step 7), `kill-optimizer@8` (half of optimizer.pt is written in the save of step 8), also
`-weights`, `-rng`, `-state`, `-seal` and `-rotate`, `kill-evaluation@10`, `kill-after@S` (after S
seconds of training), `nan@6`, `hang@9`, `clock@5` (the clock goes back a day),
`ask@7` (the launcher's request to stop at the end of step 7), `ask-evaluation@10`.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from swift.trainers.mixin import SwiftMixin
from transformers import Trainer, TrainerCallback, TrainerState

VARIABLE = "PALMSWIFT_FAULT"
CONTROL = "PALMSWIFT_CONTROL"


def _faults() -> dict[str, float]:
    words = [word.partition("@") for word in os.environ.get(VARIABLE, "").split()]
    return {what: float(where) for what, _, where in words}


FAULTS = _faults()


def _due(what: str, step: int) -> bool:
    return FAULTS.get(what) == step


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _ask() -> None:
    (Path(os.environ[CONTROL]) / "stop").touch()


class Faults(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Those at the end of a step or within an evaluation."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The clock of `kill-after` starts."""
        if "kill-after" in FAULTS:
            threading.Timer(FAULTS["kill-after"], _kill).start()

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Before anything is logged, evaluated or saved."""
        step = state.global_step
        if _due("kill", step):
            _kill()
        if _due("hang", step):
            time.sleep(3600)
        if _due("ask", step):
            _ask()
        if _due("clock", step):
            clock = time.time
            time.time = lambda: clock() - 86400

    def on_prediction_step(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """After one batch of the evaluation."""
        if _due("kill-evaluation", state.global_step):
            _kill()
        if _due("ask-evaluation", state.global_step):
            _ask()


def _half_then_kill(path: str) -> None:
    os.truncate(path, Path(path).stat().st_size // 2)
    _kill()


def _before(owner: Any, name: str, what: str) -> None:
    """Kill the process as it is about to call a method of the trainer."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def replaced(self: Any, *args: Any, **named: Any) -> Any:
        if _due(what, self.state.global_step):
            _kill()
        return method(self, *args, **named)

    setattr(owner, name, replaced)


def _plugin(name: str) -> Any:
    """The shipped plugin of that name, as ms-swift has loaded it; None without it."""
    loaded = (m for m in list(sys.modules.values()) if getattr(m, "__file__", None))
    return next((m for m in loaded if str(m.__file__).endswith(f"plugins/{name}.py")), None)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    if owner is not None:
        setattr(owner, name, make(getattr(owner, name)))


def _install() -> None:
    train, step, save_model = SwiftMixin.train, Trainer.training_step, SwiftMixin._save_model
    save = torch.save
    now = [0]

    @functools.wraps(train)
    def train_faulty(self: Any, *args: Any, **named: Any) -> Any:
        self.add_callback(Faults())
        return train(self, *args, **named)

    @functools.wraps(step)
    def training_step(self: Any, *args: Any, **named: Any) -> Any:
        now[0] = self.state.global_step + 1
        loss = step(self, *args, **named)
        return loss * float("nan") if _due("nan", now[0]) else loss

    @functools.wraps(save_model)
    def save_weights(self: Any, output_dir: str | None = None, *args: Any, **named: Any) -> Any:
        done = save_model(self, output_dir, *args, **named)
        if _due("kill-weights", self.state.global_step):
            _half_then_kill(str(next(Path(str(output_dir)).glob("*.safetensors"))))
        return done

    @functools.wraps(save)
    def save_file(value: Any, file: Any, *args: Any, **named: Any) -> None:
        save(value, file, *args, **named)
        if _due("kill-optimizer", now[0]) and str(file).endswith("optimizer.pt"):
            _half_then_kill(str(file))

    def half_state(write: Any) -> Any:
        @functools.wraps(write)
        def save_to_json(self: Any, path: str) -> None:
            write(self, path)
            if _due("kill-state", self.global_step):
                _half_then_kill(path)

        return save_to_json

    def unsealed(seal: Any) -> Any:
        @functools.wraps(seal)
        def replaced(folder: Path, at: int) -> None:
            if _due("kill-seal", at):
                _kill()
            seal(folder, at)

        return replaced

    def half_rotated(rotate: Any) -> Any:
        @functools.wraps(rotate)
        def replaced(folder: Path, limit: int | None, best: str | None) -> None:
            if _due("kill-rotate", now[0]):
                aside = min(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
                aside = aside.rename(aside.with_name(f".removed-{aside.name}"))
                next(aside.glob("*.safetensors")).unlink()
                _kill()
            rotate(folder, limit, best)

        return replaced

    SwiftMixin.train, Trainer.training_step = train_faulty, training_step
    SwiftMixin._save_model, torch.save = save_weights, save_file
    _before(Trainer, "_save_rng_state", "kill-rng")
    _replace(TrainerState, "save_to_json", half_state)
    _replace(_plugin("exact_resume"), "seal", unsealed)
    _replace(_plugin("exact_resume"), "rotate", half_rotated)


_install()
