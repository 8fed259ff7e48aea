"""Cases made of a dataset's rows: the last assistant turn is the reference, the rest is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palmswift.data.read import read_rows
from palmswift.data.row import Rejection
from palmswift.errors import InputError, Problem
from palmswift.eval.asking.conversation import Case, content_id, messages_of
from palmswift.eval.suites.assertions import Assertion

_SHOWN = 20


class DatasetSource(BaseModel):
    """A JSONL or JSON file of `messages` and what its cases are given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Relative to the suite's folder or the project, or absolute."""
    tags: list[str] = Field(default_factory=list)
    limit: int | None = Field(default=None, ge=1)
    """Take the first so many different rows; null: all."""
    repeats: int = Field(default=1, ge=1)
    weight: float = Field(default=1.0, gt=0)
    assertions: list[Assertion] = Field(default_factory=list)
    """`{kind: exact}` demands the reference itself."""


def cases_of(source: DatasetSource, path: Path) -> list[Case]:
    """The cases of `source`, read from `path`; a row that stands there twice is one case.

    The id is a hash of the row's messages. InputError: the file cannot be read, or rows of it
    give no case (told by line).
    """
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    for row in read_rows(path):
        if isinstance(row, Rejection):
            problems.append(Problem(row.detail, str(row.place)))
            continue
        try:
            case = _case(row.value, source)
        except ValueError as error:
            problems.append(Problem(_words(error), str(row.place)))
            continue
        cases.setdefault(case.id, case)
        if source.limit is not None and len(cases) >= source.limit:
            break
    if problems:
        more = len(problems) - _SHOWN
        raise InputError(
            f"{path}: {len(problems)} row(s) give no test case"
            + (f" (the first {_SHOWN} are shown)" if more > 0 else ""),
            problems[:_SHOWN],
            remedy='each row is {"messages": [..., {"role": "assistant", "content": ...}]}',
        )
    return list(cases.values())


def _words(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
    return str(error)


def _case(row: Any, source: DatasetSource) -> Case:
    """The case of one row; ValueError says what the row lacks."""
    turns = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(turns, list) or len(turns) < 2:
        raise ValueError("the row has no `messages` with a question and an answer")
    messages = messages_of(turns)
    if messages[-1].role != "assistant":
        raise ValueError("the last message is not the assistant's")
    if messages[-2].role != "user":
        raise ValueError("the message before the last is not the user's")
    return Case(
        id=content_id([message.model_dump() for message in messages]),
        messages=messages[:-1],
        reference=messages[-1].content,
        tags=source.tags,
        repeats=source.repeats,
        weight=source.weight,
        assertions=source.assertions,
    )
