"""Helpers of the data room's tests: conversations, files, and a template that counts characters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palmswift.data.checks import to_conversation
from palmswift.data.row import Conversation, Place, SourceRow
from palmswift.data.template import Judgement, TemplateFacts, TemplateSpec, Verdict
from palmswift.recipes.recipe import DataSettings

MAX_LENGTH = 200
"""Characters a row that `count_characters` lets through."""

SPEC = TemplateSpec(arguments={"model": "nowhere"})


def pair(question: str, answer: str | None) -> dict[str, Any]:
    """A row of one question and its answer."""
    return {"query": question, "response": answer}


def conversation(fields: dict[str, Any], settings: DataSettings | None = None) -> Conversation:
    """The canonical form of a row; RowError as the checks raise it."""
    return to_conversation(SourceRow(Place("f.jsonl", 1, 1), fields), settings or DataSettings())


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """The rows as JSONL."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_rows(path: Path) -> list[Any]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def count_characters(
    rows: Sequence[Conversation], template: TemplateSpec, *, log: Path
) -> Judgement:
    """In place of `judge`: a token is a character, all of the last answer is supervised."""
    verdicts = []
    for index, row in enumerate(rows):
        length = sum(len(message.content) for message in row.messages)
        verdicts.append(
            Verdict(index=index, n_tokens=length, error="MaxLengthError")
            if length > MAX_LENGTH
            else Verdict(
                index=index,
                n_tokens=length,
                n_supervised=len(row.messages[-1].content),
                has_text=True,
                ends_with_eos=True,
            )
        )
    facts = TemplateFacts(
        template="characters",
        max_length=MAX_LENGTH,
        truncation_strategy="delete",
        loss_scale="default",
        swift_version="0",
    )
    return Judgement(facts=facts, verdicts=verdicts)
