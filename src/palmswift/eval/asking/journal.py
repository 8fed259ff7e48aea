"""The journal of a test: an append-only JSONL of every finished request, torn ends mended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.errors import InputError
from palmswift.eval.asking.retry import FailureKind
from palmswift.eval.asking.timing import Timings

_SYNC_SECONDS = 1.0


class RequestError(BaseModel):
    """Why a request has no reply."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FailureKind
    status: int | None = None
    message: str


class Prediction(BaseModel):
    """One finished request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    """The endpoint's label."""
    base_url: str
    case: str
    repeat: int
    """From 0."""
    request: dict[str, Any]
    """The body that was sent."""
    route: Literal["chat", "completion"] = "chat"
    """`/v1/chat/completions` or `/v1/completions`."""
    request_hash: str
    """SHA-256 of the body as canonical JSON."""
    content: str | None = None
    """The message's text as it came, thinking included."""
    reasoning: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    tool_calls: list[Any] | None = None
    """The message's, as they came; those of a stream put together."""
    logprobs: Any = None
    """`choices[0].logprobs`, as it came: of the reply's tokens, and with `echo` the prompt's."""
    prompt_logprobs: list[Any] | None = None
    """vLLM's, one entry a token of the prompt, the first null."""
    reply: Any = None
    """The reply's JSON, but for the log-probabilities above."""
    seconds: float
    """Of the last attempt alone."""
    timings: Timings | None = None
    attempts: int
    """Requests that were sent for this answer, the last one included."""
    retried: list[RequestError] = []
    """What became of the attempts before the last."""
    fingerprint: str | None = None
    """What the model behind the endpoint was known by when asked (`fingerprint`)."""
    error: RequestError | None = None
    started_at: str
    """UTC, ISO 8601."""

    @property
    def key(self) -> RequestKey:
        """What this row answers."""
        place = (self.endpoint, self.case, self.repeat)
        return RequestKey(*place, self.request_hash, self.fingerprint)


class RequestKey(NamedTuple):
    """What one request is known by: the same key is not asked twice."""

    endpoint: str
    case: str
    repeat: int
    request_hash: str
    fingerprint: str | None = None
    """Of the model that is asked; null where it cannot be recognised."""


class Journal:
    """Appends rows to a file that one process at a time may write; use as a context manager.

    A row is with the operating system when `append` returns, so that a killed process loses none.
    What was appended is forced to the disk at the first row a second after the last time, and at
    the end: a machine that loses its power loses a second's rows, which are asked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self.size = self._open(self.path)
        self._synced_at = time.monotonic()
        return self

    def _open(self, path: Path) -> tuple[int, int]:
        """The file under `path`, locked, its torn end mended, and its size; InputError when it is
        in use."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file, _mend(file)
        except BlockingIOError as error:
            os.close(file)
            raise InputError(
                f"{self.path}: another process is writing to it",
                remedy="wait for it to end, or use another folder",
            ) from error
        except BaseException:
            os.close(file)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def append(self, row: Prediction) -> None:
        """Write one row, whole or not at all: OSError (a full disk) leaves the file as it was."""
        data = line_of(row)
        rest = data
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except BaseException:
            with contextlib.suppress(OSError):  # then the next opening mends it
                os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)
        if time.monotonic() - self._synced_at > _SYNC_SECONDS:
            os.fsync(self._file)
            self._synced_at = time.monotonic()

    def set_aside(
        self, unwanted: Callable[[Prediction], bool], *, since: int = 0
    ) -> SetAside | None:
        """Take rows that begin at byte `since` or later out of the file, which is kept as it was
        under another name. None: there are no such rows."""
        rows = sum(unwanted(row) for row in _rows(self.path, since))
        if not rows:
            return None
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
        kept = self.path.with_name(f"{self.path.stem}.until-{stamp}{self.path.suffix}")
        new = self.path.with_name(f".{self.path.name}.{os.urandom(4).hex()}")
        try:
            with self.path.open("rb") as old, new.open("xb") as stream:
                _copy(old, stream.write, since)
                for row in _rows(self.path, since):
                    if not unwanted(row):
                        stream.write(line_of(row))
                stream.flush()
                os.fsync(stream.fileno())
            file, size = self._open(new)  # locked before it has the name that others look for
            os.link(self.path, kept)
            new.replace(self.path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self.size = file, size
        return SetAside(kept, rows)


class SetAside(NamedTuple):
    """Rows that were taken out of a journal."""

    path: Path
    """The journal as it was before."""
    rows: int


def read_journal(path: Path) -> Iterator[Prediction]:
    """The rows of a journal, oldest first; a torn last line is passed over.

    InputError when a line in the middle is not a row: something else wrote to the file.
    """
    if path.exists():
        yield from _rows(path, 0)


def _rows(path: Path, since: int) -> Iterator[Prediction]:
    with path.open("rb") as stream:
        stream.seek(since)
        for number, line in enumerate(stream, start=1):
            try:
                yield Prediction.model_validate_json(line)
            except ValidationError as error:
                if not line.endswith(b"\n"):
                    return
                after = f" after byte {since}" if since else ""
                raise foreign(f"{path}:{number}{after}") from error


def foreign(where: str) -> InputError:
    """The error of a line that no journal wrote."""
    return InputError(
        f"{where}: not a row of this journal", remedy="delete that line, or use another --out"
    )


def line_of(row: Prediction) -> bytes:
    """The row as it stands in the file, with its newline; what is as by default is left out."""
    return row.model_dump_json(exclude_defaults=True).encode() + b"\n"


def _copy(source: Any, write: Callable[[bytes], object], size: int) -> None:
    while size > 0 and (block := source.read(min(size, 1 << 20))):
        write(block)
        size -= len(block)


def _mend(file: int) -> int:
    """Cut a last line that a killed process left half-written, end one that lacks its newline; the
    file's size then."""
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return size
    start = size
    tail = b""
    while start > 0 and b"\n" not in tail:
        step = min(1 << 16, start)
        start -= step
        tail = os.pread(file, step, start) + tail
    line = tail[tail.rfind(b"\n") + 1 :]
    try:
        Prediction.model_validate_json(line)
    except ValidationError:
        os.ftruncate(file, size - len(line))
        return size - len(line)
    os.write(file, b"\n")
    return size + 1
