"""What flows through the gate: a row where it was read, a row in canonical form, a rejection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

Role = Literal["system", "user", "assistant", "tool_call", "tool_response"]
"""The roles of a canonical message, by the names that ms-swift's own preprocessor gives them."""

Kind = Literal["sft", "pt", "dpo", "kto", "grpo"]
"""What a canonical row holds: `dpo` serves orpo, simpo and cpo too, `sft` gkd
(palmswift.data.policy.kind_of)."""


class Place(NamedTuple):
    """Where a row stands: the file as it was given, line and number of the row, both from 1."""

    source: str
    line: int
    """The line that the row begins on; the number of the row where a file has no lines."""
    number: int
    """Which of the file's rows it is, rejected ones counted."""

    def __str__(self) -> str:
        # A JSON array may have all its rows on one line.
        row = f" (row {self.number})" if self.line == 1 < self.number else ""
        return f"{self.source}:{self.line}{row}"


class RowError(Exception):
    """One row cannot be used; `code` is a key of `palmswift.data.policy.CHECKS`."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = printable(detail)
        super().__init__(code, detail)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row as it was read: an object, a list (of turns), or a piece of plain text."""

    place: Place
    value: dict[str, Any] | list[Any] | str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is left out, with the reason; `row` is what was read, or the text if broken."""

    place: Place
    code: str
    detail: str
    row: Any


class Message(NamedTuple):
    """One turn of a canonical row; a tool call's content is its JSON text."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row in canonical form, as ms-swift reads it.

    sft, dpo and kto: system first or absent, then user and assistant in turns (with tool calls and
    their responses between), an answer or a tool call last. pt: one assistant message. grpo: a user
    turn last.
    """

    place: Place
    shape: str
    messages: tuple[Message, ...]
    rejected_response: str | None = None
    """dpo: the answer that is not preferred; the preferred one is the last message."""
    label: bool | None = None
    """kto: whether the answer is wanted."""
    tools: str | None = None
    """The tools that the model is told of, as JSON text."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """grpo: the columns that reward functions are given, such as `solution`."""
    changes: frozenset[str] = frozenset()
    """Keys of `palmswift.data.policy.CHANGES`: what was altered on the way here."""
    findings: frozenset[str] = frozenset()
    """Keys of `palmswift.data.policy.CHECKS` that are reported while the row is kept."""
    source: Any = field(default=None, repr=False)
    """The row as it was read, for `rejected.jsonl` if a later stage rejects it."""

    def as_row(self) -> dict[str, Any]:
        """The object that stands in `train.jsonl`."""
        row: dict[str, Any] = {"messages": [message._asdict() for message in self.messages]}
        if self.tools is not None:
            row["tools"] = self.tools
        if self.rejected_response is not None:
            row["rejected_response"] = self.rejected_response
        if self.label is not None:
            row["label"] = self.label
        return {**row, **self.extra}

    @property
    def digest(self) -> bytes:
        """16 bytes that are equal exactly when two rows train the same."""
        return _digest(self.as_row())

    @property
    def question_digest(self) -> bytes:
        """16 bytes of everything before the last answer."""
        return _digest([tuple(message) for message in self.messages[:-1]])

    def reject(self, code: str, detail: str) -> Rejection:
        """The rejection of this row by a later stage."""
        return Rejection(self.place, code, printable(detail), self.source)


def _digest(document: Any) -> bytes:
    try:
        encoded = msgspec.json.encode(document)
    except OverflowError:
        # msgspec has no integers beyond 64 bits.
        encoded = json.dumps(document).encode()
    return hashlib.blake2b(encoded, digest_size=16).digest()


def texts(messages: Sequence[Message]) -> list[str]:
    """The contents of the messages."""
    return [message.content for message in messages]


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
