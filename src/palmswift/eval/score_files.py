"""Files of answers and of references, and how their rows come together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.data.read import read_rows
from palmswift.data.row import Rejection
from palmswift.errors import InputError, Problem
from palmswift.eval.asking.think import split_think
from palmswift.eval.judging.answer_files import QUESTION_KEYS, first_text
from palmswift.eval.suites.suite import load_suite

REFERENCE_KEYS = ("reference", "references", "answer", "response", "output", "参考", "回答")
_ID_KEYS = ("id", "case")
_SHOWN = 20


class Entry(NamedTuple):
    """One row's texts, and its id if it has one."""

    id: str | None
    texts: tuple[str, ...]
    """One, of an answer; of references several may be as good."""
    place: str
    prompt: Sequence[Mapping[str, Any]] = ()
    """The messages that it answers, as far as the row tells."""


class Pair(NamedTuple):
    """An answer and its references."""

    id: str | None
    answer: str
    references: tuple[str, ...]
    prompt: Sequence[Mapping[str, Any]] = ()
    place: str = ""


def read_entries(path: Path, keys: Sequence[str], *, think: bool) -> list[Entry]:
    """The texts of a file, or of a suite's references; an answer that is null, or was cut inside
    its thinking, is empty."""
    if path.suffix in (".yaml", ".yml"):
        return _of_suite(path)
    entries: list[Entry] = []
    problems: list[Problem] = []
    for row in read_rows(path):
        place = str(row.place)
        if isinstance(row, Rejection):
            problems.append(Problem(row.detail, place))
            continue
        if not isinstance(row.value, dict):
            problems.append(Problem("the row is not an object", place))
            continue
        found = _texts(row.value, keys)
        if found is None:
            what = f"none of {', '.join(keys)} or `messages` (it has {', '.join(row.value)})"
            problems.append(Problem(what, place))
            continue
        if think:
            found = tuple(split_think(text).answer or "" for text in found)
        entries.append(Entry(_id(row.value), found, place, _prompt(row.value)))
    if problems:
        raise InputError(f"{path}: {len(problems)} row(s) cannot be scored", problems[:_SHOWN])
    return entries


def _of_suite(path: Path) -> list[Entry]:
    suite = load_suite(path)
    found = [
        Entry(case.id, tuple(case.all_references), f"{path} ({case.id})", case.conversation())
        for case in suite.cases
        if case.all_references
    ]
    if not found:
        raise InputError(f"{path}: no case has a reference")
    return found


def _id(fields: Mapping[str, Any]) -> str | None:
    for key in _ID_KEYS:
        if fields.get(key) not in (None, ""):
            return str(fields[key])
    return None


def _texts(fields: dict[str, Any], keys: Sequence[str]) -> tuple[str, ...] | None:
    """The row's texts: the first of `keys` it has, else the last assistant turn of `messages`."""
    for key in keys:
        value = fields.get(key, ...)
        if value is None or isinstance(value, str):
            return (value or "",)
        if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
            return tuple(value)
    turns = fields.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    if isinstance(last, dict) and last.get("role") == "assistant":
        content = last.get("content")
        return (content,) if isinstance(content, str) else None
    return None


def _prompt(fields: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What the row's text answers."""
    turns = fields.get("messages")
    if isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns):
        return turns[:-1] if turns[-1].get("role") == "assistant" else turns
    question = first_text(fields, QUESTION_KEYS)
    return [{"role": "user", "content": question}] if question else []


def joined(
    predictions: Sequence[Entry], references: Sequence[Entry], first: Path, second: Path
) -> list[Pair]:
    """Answers with their references, by id or by order; InputError when a row has no partner."""
    by_id = all(entry.id is not None for entry in (*predictions, *references))
    if not by_id:
        if len(predictions) != len(references):
            raise InputError(
                f"{first} has {len(predictions)} rows and {second} has {len(references)}",
                remedy="without an `id` in every row of both, rows are joined by their order",
            )
        return [_pair(p, r) for p, r in zip(predictions, references, strict=True)]
    problems: list[Problem] = []
    answers: dict[str, Entry] = {}
    expected: dict[str, Entry] = {}
    for entries, index in ((predictions, answers), (references, expected)):
        for entry in entries:
            name = entry.id or ""
            if name in index:
                problems.append(Problem(f"the id {name!r} was given before", entry.place))
            index[name] = entry
    problems += [
        Problem(f"the id {name!r} has no partner", entry.place)
        for index, other in ((answers, expected), (expected, answers))
        for name, entry in index.items()
        if name not in other
    ]
    if problems:
        raise InputError(
            f"{first} and {second} do not fit: {len(problems)} problem(s)", problems[:_SHOWN]
        )
    return [_pair(answers[name], entry) for name, entry in expected.items()]


def _pair(answer: Entry, reference: Entry) -> Pair:
    prompt = reference.prompt or answer.prompt
    return Pair(reference.id, answer.texts[0], reference.texts, prompt, reference.place)
