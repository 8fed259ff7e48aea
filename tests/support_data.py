"""Helpers of the data room's tests: rows, files, and a template that counts characters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from palmswift.data.policy import Action
from palmswift.data.row import Kind
from palmswift.data.sample import SampleRow, Span
from palmswift.data.template import Judgement, TemplateFacts, TemplateSpec
from palmswift.data.verdict import Part, Verdict, Verdicts

MAX_LENGTH = 200
"""Characters a row that `CharacterJudge` lets through."""

SPEC = TemplateSpec(arguments={"model": "nowhere"})


def pair(question: str, answer: str | None) -> dict[str, Any]:
    """A row of one question and its answer."""
    return {"query": question, "response": answer}


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """The rows as JSONL."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_rows(path: Path) -> list[Any]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


class CharacterJudge:
    """In place of TemplateJudge: a token is a character, the last message is supervised.

    Over-long rows are split before each user turn, or lose their first turns.
    """

    def __init__(
        self, spec: TemplateSpec, kind: Kind, *, over_length: Action, log: Path, samples: int = 8
    ) -> None:
        self._over_length = over_length
        self._samples = samples
        self._verdicts = Verdicts()
        self._first: list[dict[str, Any]] = []

    def __enter__(self) -> CharacterJudge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing was started."""

    def submit(self, rows: Sequence[dict[str, Any]]) -> None:
        """Count the characters of the rows."""
        self._verdicts.extend(map(self._verdict, rows))
        self._first += rows[: self._samples - len(self._first)]

    def finish(self, progress: Callable[[int, int], None] | None = None) -> Judgement:
        """The verdicts on all rows."""
        facts = TemplateFacts(
            template="characters",
            max_length=MAX_LENGTH,
            truncation_strategy="delete",
            loss_scale="default",
            swift_version="0",
        )
        samples = [
            SampleRow(index=index, spans=[Span(text=text, n_tokens=len(text), trained=True)])
            for index, row in enumerate(self._first)
            if (text := row["messages"][-1]["content"])
        ]
        return Judgement(facts, self._verdicts, samples)

    def _verdict(self, row: dict[str, Any]) -> Verdict:
        lengths = [len(message["content"]) for message in row["messages"]]
        if sum(lengths) <= MAX_LENGTH:
            return Verdict(sum(lengths), lengths[-1])
        roles = [message["role"] for message in row["messages"]]
        starts = [number for number, role in enumerate(roles) if role == "user"]
        parts = [
            Part(start, stop, sum(lengths[start:stop]), lengths[stop - 1])
            for start, stop in zip(starts, [*starts[1:], len(roles)], strict=True)
        ]
        if self._over_length == "truncate":
            parts = parts[-1:]
        if self._over_length == "reject" or any(part.n_tokens > MAX_LENGTH for part in parts):
            detail = f"{sum(lengths)} tokens > max_length {MAX_LENGTH}"
            return Verdict(sum(lengths), lengths[-1], "over_length", detail)
        tokens = sum(part.n_tokens for part in parts)
        return Verdict(tokens, sum(part.n_supervised for part in parts), parts=tuple(parts))
