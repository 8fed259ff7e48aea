"""A file of lines that another process appends to, read as far as it has whole lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """A whole line without its end, and the file's bytes up to its end."""

    text: bytes
    end: int


class Tail:
    """Reads on where it stopped. A file that has become shorter is another one: read from 0."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """`offset` is where an earlier reading stopped."""
        self.path = path
        self.offset = offset

    def lines(self) -> Iterator[Line]:
        """The lines that are whole by now and were not given before; none when there is no file.

        A line counts as given once the next one is asked for.
        """
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            self.offset = 0
            return
        with stream:
            if stream.seek(0, 2) < self.offset:
                self.offset = 0
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                end = self.offset + len(line)
                yield Line(line[:-1], end)
                self.offset = end
