"""Answers to be judged or rated, from journals and from plain files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palmswift.data.read import read_rows
from palmswift.data.row import Rejection
from palmswift.errors import InputError
from palmswift.eval.asking.conversation import content_id
from palmswift.eval.asking.journal import Prediction, read_journal
from palmswift.eval.asking.think import split_think
from palmswift.eval.judging.judge import Candidate
from palmswift.eval.suites.dialogue import Answers
from palmswift.eval.suites.suite import Suite
from palmswift.files import read_jsonl

ANSWER_KEYS = ("answer", "prediction", "content", "response", "output", "回答")
QUESTION_KEYS = ("question", "input", "prompt", "query", "instruction", "问题")
REFERENCE_KEYS = ("reference", "参考")


def read_candidates(path: Path, suite: Suite | None = None) -> list[Candidate]:
    """The answers of a predictions.jsonl, or of a file of rows with question and answer.

    A journal's answers bear the labels of their endpoints, a plain file's the file's name. With a
    suite only answers to its cases count, and references come from it. Thinking is left out, and so
    are requests without an answer. InputError: the file has no answer.
    """
    if is_journal(path):
        rows = list(read_journal(path))
        found = _of_suite(rows, suite) if suite is not None else _of_rows(rows)
    else:
        found = _of_plain_rows(path)
    if not found:
        raise InputError(f"{path}: no answer in it", remedy="is the suite the one that was asked?")
    return found


def is_journal(path: Path) -> bool:
    """Whether the file is what an evaluation has written."""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    try:
        first = next(iter(read_jsonl(path)), None)
    except ValueError:
        return False
    return isinstance(first, dict) and "request_hash" in first


def _of_suite(rows: Sequence[Prediction], suite: Suite) -> list[Candidate]:
    answers = Answers(suite.cases, rows)
    labels = dict.fromkeys(row.endpoint for row in rows)
    found = []
    for label in labels:
        for case in suite.cases:
            for repeat in range(case.repeats):
                row = answers.row(label, case, repeat)
                candidate = _candidate(row, case.reference) if row is not None else None
                if candidate is not None:
                    found.append(candidate)
    return found


def _of_rows(rows: Sequence[Prediction]) -> list[Candidate]:
    """The last answer to each question."""
    latest = {(row.endpoint, row.case, row.repeat): row for row in rows if row.error is None}
    made = [_candidate(row, None) for row in latest.values()]
    return [candidate for candidate in made if candidate is not None]


def _candidate(row: Prediction, reference: str | None) -> Candidate | None:
    answer = split_think(row.content, row.reasoning).answer if row.error is None else None
    if answer is None:
        return None
    system, question = _shown(row.request.get("messages") or [])
    return Candidate(row.endpoint, row.case, row.repeat, question, answer, reference, system)


def _shown(messages: Sequence[dict[str, Any]]) -> tuple[str | None, str]:
    """The system prompt, and what was said before the answer."""
    system = None
    if messages and messages[0].get("role") == "system":
        system, messages = str(messages[0].get("content")), messages[1:]
    if len(messages) == 1:
        return system, str(messages[0].get("content"))
    return system, "\n".join(f"{turn.get('role')}: {turn.get('content')}" for turn in messages)


def _of_plain_rows(path: Path) -> list[Candidate]:
    found = []
    for row in read_rows(path):
        if isinstance(row, Rejection):
            raise InputError(f"{row.place}: {row.detail}")
        fields = row.value if isinstance(row.value, dict) else {}
        answer, question = first_text(fields, ANSWER_KEYS), first_text(fields, QUESTION_KEYS)
        if answer is None or question is None:
            raise InputError(
                f"{row.place}: a question and an answer are expected",
                remedy=f"columns {QUESTION_KEYS[0]} and {ANSWER_KEYS[0]}, or a predictions.jsonl",
            )
        name = str(fields.get("id") or fields.get("case") or content_id(question))
        own = split_think(answer).answer
        if own is not None:
            reference = first_text(fields, REFERENCE_KEYS)
            found.append(Candidate(path.stem, name, 0, question, own, reference))
    return found


def first_text(fields: dict[str, Any], keys: Sequence[str]) -> str | None:
    """The first of `keys` that holds a text."""
    return next((fields[key] for key in keys if isinstance(fields.get(key), str)), None)
