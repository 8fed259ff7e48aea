"""A file on disk that holds the rows between the two passes of the gate, in reading order."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from palmswift.data.row import Rejection

_BUFFER = 1 << 20


class Candidate(NamedTuple):
    """A row that has passed all the checks that look at it alone."""

    line: bytes
    """The object that will stand in train.jsonl or val.jsonl, as JSON."""
    shape: str
    changes: tuple[str, ...]
    findings: tuple[str, ...]
    source: Any
    """What was read; None where `line` says the same."""


class Spool:
    """Rows are added, then read back in the same order as often as needed.

    Pickle, because what was read may hold what JSON cannot (a lone surrogate, NaN); the file is
    ours alone, in a folder that nobody else can write to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = io.BufferedWriter(io.FileIO(path, "wb"), _BUFFER)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A full disk would refuse the rest of the buffer again, and hide the first error.
        if not self._stream.closed:
            self._stream.raw.close() if kind else self._stream.close()

    def add(self, record: Candidate | Rejection) -> None:
        """Append a row."""
        if isinstance(record, Candidate):
            plain: tuple[Any, ...] = tuple(record)
        else:
            plain = (record.place, record.code, record.detail, record.row)
        self._stream.write(pickle.dumps(plain, pickle.HIGHEST_PROTOCOL))

    def __iter__(self) -> Iterator[Candidate | Rejection]:
        """Every row that was added."""
        self._stream.flush()
        with self._path.open("rb", buffering=_BUFFER) as stream:
            while True:
                try:
                    plain = pickle.load(stream)
                except EOFError:
                    return
                yield Candidate(*plain) if isinstance(plain[0], bytes) else Rejection(*plain)
