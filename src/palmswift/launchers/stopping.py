"""A training's orderly end: the first signal asks for it, a second one ends the training now."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from palmswift.command import leave_terminal
from palmswift.launchers.checkpoint_files import read_document

VARIABLE = "PALMSWIFT_CONTROL"
"""Tells the plugin orderly_stop the folder through which it is asked, and answers."""

_STEPPING, _STOP, _STOPPED = "stepping", "stop", "stopped"

_LEAVING_SECONDS = 60.0
"""How long a training that has answered may take to be gone."""


class Control:
    """The folder through which a training is asked to stop: its launcher's end of it."""

    def __init__(self, folder: Path) -> None:
        """The folder is made anew: what is in it was said to, or by, an earlier training."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder

    @property
    def stepping(self) -> bool:
        """Whether the training has taken a step, so that there is something to save."""
        return (self.folder / _STEPPING).exists()

    @property
    def stopped(self) -> dict[str, Any] | None:
        """`step` and `checkpoint` with which it has stopped; None before."""
        return read_document(self.folder / _STOPPED)

    def ask(self) -> None:
        """Ask the training to stop in good order."""
        (self.folder / _STOP).touch()


class Signals:
    """Counts Ctrl-C, SIGTERM and a closed terminal; from the second on they interrupt."""

    def __init__(self) -> None:
        self.came = 0

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        self.came += 1
        if self.came > 1:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def counted(self) -> Iterator[Signals]:
        """Within the block; what is ignored (nohup) stays so, and another thread has none."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, self._heed)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class OrderlyEnd:
    """Turns a signal into a request to the training, and gives up on one that hangs at its end."""

    def __init__(self, control: Control, signals: Signals) -> None:
        self.control = control
        self.signals = signals
        self.asked = False
        self._answered: float | None = None

    def heed(self) -> str:
        """What to tell the user now, mostly nothing.

        `KeyboardInterrupt` when the training is to end at once: no step has been taken that a
        checkpoint would save, or it has answered and does not go.
        """
        if not self.signals.came:
            return ""
        if not self.asked:
            if not self.control.stepping:
                raise KeyboardInterrupt
            self.control.ask()
            self.asked = True
            return (
                "asked the training to stop: it ends the step in progress and saves a checkpoint; "
                "once more (Ctrl-C) ends it now, from the last checkpoint on"
            )
        if self.control.stopped is not None:
            self._answered = self._answered or time.monotonic()
            if time.monotonic() - self._answered > _LEAVING_SECONDS:
                raise KeyboardInterrupt
        return ""
