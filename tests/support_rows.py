"""Helpers for tests of single rows: a row's canonical form, what it says, why it is rejected."""

from __future__ import annotations

from typing import Any

import pytest

from palmswift.data.checks import Canonicaliser
from palmswift.data.row import Kind, Place, RowError, SourceRow, TrainingRow
from palmswift.recipes.recipe import DataSettings

PLACE = Place("f.jsonl", 1, 1)


def canonical(value: Any, kind: Kind = "sft", **settings: Any) -> TrainingRow:
    """The canonical form of a row under `DataSettings(**settings)`; RowError as it is raised."""
    return Canonicaliser(kind, DataSettings(**settings)).row(SourceRow(PLACE, value))


def said(value: Any, kind: Kind = "sft", **settings: Any) -> list[tuple[str, str]]:
    """Role and content of each message of the canonical form."""
    messages = canonical(value, kind, **settings).messages
    return [(message.role, message.content) for message in messages]


def refused(value: Any, kind: Kind = "sft", **settings: Any) -> RowError:
    """The error of a row that is rejected."""
    with pytest.raises(RowError) as caught:
        canonical(value, kind, **settings)
    return caught.value


def turns(*roles_and_contents: tuple[Any, Any]) -> dict[str, Any]:
    """A row of messages."""
    return {"messages": [{"role": role, "content": text} for role, text in roles_and_contents]}


U, A, S = ("user", "q"), ("assistant", "a"), ("system", "s")
