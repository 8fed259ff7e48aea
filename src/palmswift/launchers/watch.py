"""Watches one launch of a training: its events into the run's journal, how it goes on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Protocol

import psutil

from palmswift.launchers.event_text import (
    PHASE_WORDS,
    describe,
    duration,
    silence_words,
    step_words,
)
from palmswift.launchers.events import (
    AttemptEvent,
    EndEvent,
    Event,
    NoteEvent,
    Phase,
    PhaseEvent,
    SilenceEvent,
    StepEvent,
)
from palmswift.launchers.feed import Feed
from palmswift.launchers.render import Rendered
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.verdict import Verdict
from palmswift.process import family

_PLAIN_INTERVAL = 10.0

PATIENCE: dict[Phase, float] = {
    "start": 180.0,
    "download": 300.0,
    "load": 600.0,
    "encode": 600.0,
    "prepare": 300.0,
    "train": 180.0,
    "evaluate": 300.0,
    "save": 600.0,
    "end": 300.0,
}
"""Seconds without a word after which a phase is worth a look: it may be a slow disk, or a hang."""

_STEPS_OF_PATIENCE = 10
"""A training may be silent for this many of its steps."""


class View(Protocol):
    """Shows the progress."""

    def __enter__(self) -> View:
        """Begin to show."""

    def show(self, feed: Feed, events: list[Event], warning: str) -> None:
        """How it stands; `warning` is empty while all is well."""

    def close(self) -> None:
        """Leave the last picture standing."""


class Watch:
    """Follows a child from its launch to its end; `update` is called every half second or so."""

    def __init__(
        self,
        run: RunFolder,
        log: Path,
        command: Rendered,
        *,
        pid: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log` is the child's raw output, `pid` its process, `clock` gives seconds."""
        attempt = AttemptEvent(
            command=run.recipe.swift_command, resumed_from=_resumed_from(command.argv)
        )
        self.feed = Feed(run.training, log, run.events, attempt, clock)
        done = {name: stage for name, stage in run.state.stages.items() if stage.state == "done"}
        self.view = _view([(name, stage.seconds or 0.0) for name, stage in done.items()])
        self._journal = run.events
        self._pid = pid
        self._told_silence = 0.0
        self._warning = ""
        self._notes: list[Event] = []
        self._notice = ""

    def __enter__(self) -> Watch:
        self.view.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.update()  # what the child wrote last
        finally:
            self.view.close()

    @property
    def seconds(self) -> float:
        """Since the launch."""
        return self.feed.seconds

    def update(self) -> None:
        """Read what the child wrote, and show it."""
        events = [*self.feed.poll(), *self._notes]
        self._notes.clear()
        if silence := self._silence():
            events.append(silence)
            self._journal.add(silence)
        self.view.show(self.feed, events, self._notice or self._warning)

    def note(self, topic: str, text: str) -> None:
        """Write down and show what the launcher does meanwhile, in words."""
        event = NoteEvent(topic=topic, text=text)
        self._journal.add(event)
        self._notes.append(event)
        self._notice = text

    def _silence(self) -> SilenceEvent | None:
        """A child that has said nothing for long: told once, and again when that has doubled."""
        progress, silent = self.feed.progress, self.feed.silent
        patience = PATIENCE[progress.phase]
        last = progress.last
        if progress.phase == "train" and last and last.eta_seconds and last.step < last.max_steps:
            a_step = last.eta_seconds / (last.max_steps - last.step)
            patience = max(patience, _STEPS_OF_PATIENCE * a_step)
        if silent < patience:
            self._told_silence, self._warning = 0.0, ""
            return None
        if silent < max(patience, 2 * self._told_silence):
            return None
        self._told_silence = silent
        event = SilenceEvent(
            phase=progress.phase,
            step=progress.step,
            seconds=round(silent, 1),
            cpu_percent=self._cpu_percent(),
        )
        self._warning = silence_words(event)
        return event

    def _cpu_percent(self) -> float | None:
        """What the child's processes use in a tenth of a second; None when it cannot be told."""
        if self._pid is None:
            return None
        processes = family(self._pid)
        with contextlib.suppress(psutil.Error):
            before = _cpu_seconds(processes)
            begun = time.monotonic()
            time.sleep(0.1)
            spent = _cpu_seconds(processes) - before
            return round(100 * max(0.0, spent) / (time.monotonic() - begun))
        return None


def end_event(verdict: Verdict, exit_code: int, seconds: float) -> EndEvent:
    """How a launch of the child has ended."""
    failure = verdict.failure
    return EndEvent(
        exit_code=exit_code,
        seconds=round(seconds, 3),
        failure=failure.kind if failure else "",
        cause=failure.cause if failure else "",
        remedy=failure.remedy if failure else "",
    )


def _resumed_from(argv: Sequence[str]) -> str:
    for flag, value in pairwise(argv):
        if flag == "--resume_from_checkpoint":
            return Path(value).name
    return ""


def _cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    spent = 0.0
    for process in processes:
        times = process.cpu_times()
        spent += times.user + times.system
    return spent


class Lines:
    """A line for every event but steps, of which one in ten seconds is told."""

    def __init__(self) -> None:
        self._said = 0.0

    def __enter__(self) -> Lines:
        return self

    def show(self, feed: Feed, events: list[Event], warning: str) -> None:
        """Write what there is to write."""
        progress = feed.progress
        for event in events:
            if isinstance(event, StepEvent) or (
                isinstance(event, PhaseEvent) and event.phase in ("train", "save")
            ):
                continue
            self._say(feed.seconds, describe(event))
        if feed.seconds - self._said < _PLAIN_INTERVAL:
            return
        last = progress.last
        if progress.phase not in ("start", "train") or last is None:
            seconds = feed.seconds - progress.phase_since
            line = f"{PHASE_WORDS[progress.phase]} ({duration(seconds)})"
            if progress.step:
                line += f"  step {progress.step}"
            self._say(feed.seconds, line)
        else:
            line = "  ".join([f"step {last.step}/{last.max_steps}", *step_words(last)])
            self._say(feed.seconds, line)

    def _say(self, seconds: float, line: str) -> None:
        self._said = seconds
        sys.stderr.write(f"  {seconds:4.0f} s  {line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Nothing: every line stands by itself."""


def _view(stages: list[tuple[str, float]]) -> View:
    """The picture where stderr is a terminal that can show it, else lines."""
    encoding = (sys.stderr.encoding or "").lower().replace("-", "")
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or encoding != "utf8":
        return Lines()
    from palmswift.launchers.watch_screen import Picture

    return Picture(stages)
