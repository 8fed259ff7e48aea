"""Which journalled answers count for a case, and what it asks after the model's own answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from palmswift.eval.asking.conversation import Case
from palmswift.eval.asking.journal import Prediction
from palmswift.eval.asking.think import split_think

Place = tuple[str, str, int]
"""Endpoint, case, repeat."""


class Answers:
    """The rows of a journal that answer what the cases ask today.

    A row counts when it sent the case's messages and `request` fields; of several, the last that
    has a reply, else the last.
    """

    def __init__(self, cases: Sequence[Case], predictions: Iterable[Prediction]) -> None:
        self._cases = {case.id: case for case in cases}
        self._rows: dict[Place, list[Prediction]] = defaultdict(list)
        for row in predictions:
            if row.case in self._cases:
                self._rows[row.endpoint, row.case, row.repeat].append(row)
        self._chosen: dict[Place, Prediction | None] = {}

    @property
    def rows(self) -> list[Prediction]:
        """All rows that answer a case as it is asked today, superseded ones too."""
        return [
            row
            for (label, case, repeat), rows in self._rows.items()
            for row in self._fitting(label, self._cases[case], repeat, rows)
        ]

    def row(self, label: str, case: Case, repeat: int) -> Prediction | None:
        """The row that counts; None: not asked yet."""
        place = (label, case.id, repeat)
        if place not in self._chosen:
            chosen: Prediction | None = None
            for row in self._fitting(label, case, repeat, self._rows.get(place, [])):
                if chosen is None or row.error is None or chosen.error is not None:
                    chosen = row
            self._chosen[place] = chosen
        return self._chosen[place]

    def messages(self, label: str, case: Case, repeat: int) -> list[dict[str, Any]] | None:
        """What the case asks; None: the question before it has no answer (yet)."""
        if case.after is None:
            return case.conversation()
        before = self.row(label, self._cases[case.after], repeat)
        if before is None or before.error is not None:
            return None
        answer = split_think(before.content, before.reasoning).answer
        if answer is None:
            return None
        said = [*before.request["messages"], {"role": "assistant", "content": answer}]
        return case.conversation(said)

    def _fitting(
        self, label: str, case: Case, repeat: int, rows: Sequence[Prediction]
    ) -> list[Prediction]:
        if not rows:
            return []
        messages = self.messages(label, case, repeat)
        return [
            row
            for row in rows
            if row.request.get("messages") == messages
            and all(row.request.get(name) == value for name, value in case.request.items())
        ]


def depths(cases: Sequence[Case]) -> dict[str, int]:
    """How many of the model's own answers come before each case, by id."""
    found: dict[str, int] = {}
    for case in cases:  # a case stands after the one it follows
        found[case.id] = 0 if case.after is None else found[case.after] + 1
    return found


def with_followers(cases: Sequence[Case], chosen: Sequence[Case]) -> list[Case]:
    """The chosen cases that open a conversation, each with all that follows it."""
    kept = {case.id for case in chosen if case.after is None}
    result = []
    for case in cases:
        if case.id in kept or case.after in kept:
            kept.add(case.id)
            result.append(case)
    return result
