"""What flows through the gate: a row where it was read, a conversation, a rejection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Role = Literal["system", "user", "assistant"]
"""The roles of a canonical message."""


class Place(NamedTuple):
    """Where a row stands: the file as it was given, line and number of the row, both from 1."""

    source: str
    line: int
    """The line that the row begins on."""
    number: int
    """Which of the file's rows it is, rejected ones counted."""

    def __str__(self) -> str:
        # A JSON array may have all its rows on one line.
        row = f" (row {self.number})" if self.line == 1 < self.number else ""
        return f"{self.source}:{self.line}{row}"


class RowError(Exception):
    """One row cannot be used; `code` is a key of `palmswift.data.reasons.REASONS`."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = printable(detail)
        super().__init__(code, detail)


@dataclass(frozen=True)
class SourceRow:
    """A row that was read: a JSON object, or a CSV record by column."""

    place: Place
    fields: dict[str, Any]


@dataclass(frozen=True)
class Rejection:
    """A row that is left out, with the reason; `row` is the object, or the text if it is none."""

    place: Place
    code: str
    detail: str
    row: Any


class Message(NamedTuple):
    """One turn of a canonical conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """A row in canonical form: system first or absent, then user and assistant in turns."""

    place: Place
    shape: str
    messages: tuple[Message, ...]
    changes: frozenset[str]
    """Keys of `palmswift.data.reasons.CHANGES`: what was altered on the way here."""
    source: dict[str, Any] = field(repr=False)
    """The row as it was read, for `rejected.jsonl` if a later stage rejects it."""

    def as_row(self) -> dict[str, Any]:
        """The object that stands in `train.jsonl`."""
        return {"messages": [message._asdict() for message in self.messages]}

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the messages: equal exactly when two rows train the same."""
        return _digest(self.messages)

    @property
    def question_digest(self) -> str:
        """SHA-256, in hex, of everything before the last answer."""
        return _digest(self.messages[:-1])

    def reject(self, code: str, detail: str) -> Rejection:
        """The rejection of this row by a later stage."""
        return Rejection(self.place, code, printable(detail), self.source)


def _digest(messages: Sequence[Message]) -> str:
    text = json.dumps(messages, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def printable(text: str, limit: int = 300) -> str:
    """`text` as UTF-8 can hold it (lone surrogates escaped), cut to `limit` characters."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return safe if len(safe) <= limit else f"{safe[: limit - 1]}…"


def json_line(document: Any) -> str:
    """One line of JSON that UTF-8 can hold: lone surrogates stay, as `\\uXXXX` escapes."""
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(document, ensure_ascii=True)
    return line + "\n"
