"""The journal of a test: an append-only JSONL of every finished request, torn ends mended."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.errors import InputError
from palmswift.eval.retry import FailureKind
from palmswift.eval.timing import Timings
from palmswift.files import atomic_text

_SYNC_ROWS = 32
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
    """The reply's JSON; what a field above holds whole (logprobs, tool_calls) may be left out."""
    seconds: float
    """Of the last attempt alone."""
    timings: Timings | None = None
    attempts: int
    """Requests that were sent for this answer, the last one included."""
    fingerprint: str | None = None
    """What the model behind the endpoint was known by (palmswift.eval.fingerprint) when asked."""
    error: RequestError | None = None
    started_at: str
    """UTC, ISO 8601."""

    @property
    def key(self) -> RequestKey:
        """What this row answers."""
        return RequestKey(self.endpoint, self.case, self.repeat, self.request_hash)


class RequestKey(NamedTuple):
    """What one request is known by: the same key is not asked twice."""

    endpoint: str
    case: str
    repeat: int
    request_hash: str


class Journal:
    """Appends rows to a file that one process at a time may write; use as a context manager.

    A row is with the operating system when `append` returns, so a killed process loses none, and
    on the disk at most a second or 32 rows later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _mend(self._file)
        except BlockingIOError as error:
            os.close(self._file)
            raise InputError(
                f"{self.path}: another process is writing to it",
                remedy="wait for it to end, or use another folder",
            ) from error
        self._unsynced = 0
        self._synced_at = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def append(self, row: Prediction) -> None:
        """Write one row."""
        data = row.model_dump_json(exclude_none=True).encode() + b"\n"
        while data:
            data = data[os.write(self._file, data) :]
        self._unsynced += 1
        if self._unsynced >= _SYNC_ROWS or time.monotonic() - self._synced_at > _SYNC_SECONDS:
            os.fsync(self._file)
            self._unsynced, self._synced_at = 0, time.monotonic()


def read_journal(path: Path) -> Iterator[Prediction]:
    """The rows of a journal, oldest first; a torn last line is passed over.

    InputError when a line in the middle is not a row: something else wrote to the file.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield Prediction.model_validate_json(line)
            except ValidationError as error:
                if not line.endswith(b"\n"):
                    return
                raise InputError(
                    f"{path}:{number}: not a row of this journal",
                    remedy="delete that line, or use another --out",
                ) from error


def set_aside(path: Path, labels: Collection[str]) -> Path | None:
    """Take the rows of `labels` out of the journal; the file as it was is kept under the name
    that is given back. None: it has no such rows."""
    with Journal(path):
        rows = list(read_journal(path))
        rest = [row for row in rows if row.endpoint not in labels]
        if len(rest) == len(rows):
            return None
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
        kept = path.with_name(f"{path.stem}.until-{stamp}{path.suffix}")
        os.link(path, kept)
        with atomic_text(path) as stream:
            stream.writelines(row.model_dump_json(exclude_none=True) + "\n" for row in rest)
    return kept


def _mend(file: int) -> None:
    """Cut a last line that a killed process left half-written; end one that lacks its newline."""
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return
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
    else:
        os.write(file, b"\n")
