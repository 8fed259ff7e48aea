"""How far a server's start is, read from its growing log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_PHASES = (
    (re.compile(r"run sh:"), "importing ms-swift"),
    (re.compile(r"\] args: |Starting to load model"), "loading the model"),
    (re.compile(r"Loading weights took"), "making room for the requests' context"),
    (re.compile(r"Started server process"), "waiting for the first completion"),
)
"""A line of the log, and what goes on from there."""

_MOVED = re.compile(r"Uvicorn running on \S+?:(\d+)(?!\S)")
_QUIET_SECONDS = 60.0


class Phase(NamedTuple):
    """One step of a start and how long it took."""

    name: str
    seconds: float


class StartWatch:
    """Reads the growing log: which phase the start is in, since when, and when it last grew."""

    def __init__(
        self, log: Path, note: Callable[[str], object], first: str = "starting swift"
    ) -> None:
        """`first` is what goes on before the log has its first line."""
        self.log = log
        self.note = note
        self.phase = first
        self.uvicorn_port: int | None = None
        self._begun = self._phase_begun = self._grown = time.monotonic()
        self._offset = 0
        self._rest = ""
        self._done: list[Phase] = []
        self._ahead = list(_PHASES)
        self._told_quiet = False

    @property
    def quiet(self) -> float:
        """Seconds since the log last grew."""
        return time.monotonic() - self._grown

    def update(self) -> None:
        """Read what is new."""
        for line in self._new_lines():
            if found := _MOVED.search(line):
                self.uvicorn_port = int(found[1])
            for index, (pattern, name) in enumerate(self._ahead):
                if pattern.search(line):
                    self._enter(name)
                    del self._ahead[: index + 1]
                    break
        if self.quiet > _QUIET_SECONDS and not self._told_quiet:
            self._told_quiet = True
            self.note(f"  {self.phase}: no new line in {self.log} for {self.quiet:.0f} s")

    def finish(self) -> list[Phase]:
        """End the last phase; all of them with their seconds."""
        self._enter("")
        return self._done

    def _enter(self, name: str) -> None:
        now = time.monotonic()
        self._done.append(Phase(self.phase, round(now - self._phase_begun, 2)))
        self.note(f"  {now - self._begun:5.1f} s  {self.phase}: done")
        self.phase, self._phase_begun = name, now

    def _new_lines(self) -> list[str]:
        try:
            with self.log.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        if data:
            self._offset += len(data)
            self._grown, self._told_quiet = time.monotonic(), False
        *lines, self._rest = (self._rest + data.decode("utf-8", errors="replace")).split("\n")
        return lines
