"""Follows a run from another terminal: its events and its child's output, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from palmswift.launchers.event_text import describe
from palmswift.launchers.events import Event, PhaseEvent, parse_event
from palmswift.launchers.run_folder import is_held
from palmswift.launchers.tail import Tail

_POLL_SECONDS = 0.5
_SHOWN_BEFORE = 20
"""Lines of what was before, which a follower is shown first."""


def follow(
    run: Path,
    *,
    events: bool = True,
    log: bool = True,
    before: int = _SHOWN_BEFORE,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Lines of the run's events and of its newest log as they come; ends when nobody works on it.

    The last `before` lines of each that are there already come first.
    """
    journal, output = Tail(run / "events.jsonl"), _Log(run / "logs")
    first = True
    while True:
        # Asked before the files are read: what was written until then is shown.
        running = is_held(run)
        lines = list(_event_lines(journal)) if events else []
        raw = [f"    | {line}" for line in output.lines()] if log else []
        if first:
            lines, raw, first = lines[-before:], raw[-before:], False
        yield from raw
        yield from lines
        if not running:
            return
        wait(_POLL_SECONDS)


def _event_lines(journal: Tail) -> Iterator[str]:
    for line in journal.lines():
        event = parse_event(line.text)
        if event is not None and not _is_small(event):
            yield f"{event.time[11:19]}  {describe(event)}"


def _is_small(event: Event) -> bool:
    """What the lines around it tell too."""
    return isinstance(event, PhaseEvent) and event.phase in ("train", "save")


class _Log:
    """The output of whichever child wrote last; redraws of a progress bar are left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tail: Tail | None = None

    def lines(self) -> Iterator[str]:
        logs = sorted(self.folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
        if not logs:
            return
        if self._tail is None or self._tail.path != logs[-1]:
            self._tail = Tail(logs[-1])
        for line in self._tail.lines():
            text = line.text.decode("utf-8", errors="replace").rsplit("\r", 1)[-1].rstrip()
            if text:
                yield text
