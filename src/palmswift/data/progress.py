"""How far long work over data has come: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from palmswift.data.read import DataFile
    from palmswift.data.row import Rejection, SourceRow

_FIRST_LINE, _LINE_EVERY = 2.0, 15.0
"""Seconds to the first line of a step, and between its lines, where there is no terminal."""

_TOLD_EVERY = 1024
"""Rows."""


class Progress(Protocol):
    """Is told of steps that take time, one after the other."""

    def begin(self, what: str, total: int = 0) -> None:
        """A step begins; `total` is what `at` will come to, 0 where that is not known."""

    def at(self, done: int) -> None:
        """So much of the total is done; called as often as is convenient."""

    def end(self) -> None:
        """Nothing more will be told."""


class Silence:
    """Tells nobody."""

    def begin(self, what: str, total: int = 0) -> None:
        """Nothing."""

    def at(self, done: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Lines:
    """Lines on stderr about a step that takes more than a moment."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._what, self._total, self._due = "", 0, 0.0

    def begin(self, what: str, total: int = 0) -> None:
        """Note what begins."""
        self._what, self._total, self._due = what, total, self._clock() + _FIRST_LINE

    def at(self, done: int) -> None:
        """Tell how far it is, when it is time to."""
        now = self._clock()
        if now >= self._due:
            self._due = now + _LINE_EVERY
            share = f": {min(100, 100 * done // self._total)} %" if self._total else " …"
            print(f"{self._what}{share}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing: every line stands by itself."""


class Bar:
    """A bar on the terminal, with the time that is left."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, visible=False)

    def begin(self, what: str, total: int = 0) -> None:
        """Start the bar anew."""
        self._bars.start()
        self._bars.reset(self._task, total=total or None, description=what, visible=True)

    def at(self, done: int) -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=done)

    def end(self) -> None:
        """Take the bar away."""
        self._bars.stop()


def for_terminal() -> Progress:
    """A bar when stderr is a terminal, lines otherwise."""
    if not sys.stderr.isatty():
        return Lines()
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Remaining())
    return Bar(Progress(*columns, console=Console(stderr=True), transient=True))


def rows_of(files: Sequence[DataFile], progress: Progress) -> Iterator[SourceRow | Rejection]:
    """The rows of all files, telling how much of them has been read."""
    progress.begin("reading", sum(file.size for file in files))
    before = 0
    for file in files:
        for number, row in enumerate(file.rows()):
            if number % _TOLD_EVERY == 0:
                progress.at(before + file.position)
            yield row
        before += file.size
    progress.end()
