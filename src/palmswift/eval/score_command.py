"""The command that scores a file of answers against a file of references."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.command import Console, Done, make_parser, run
from palmswift.data.read import read_rows
from palmswift.data.row import Rejection
from palmswift.errors import InputError, Problem
from palmswift.eval.metrics import TextMetric
from palmswift.eval.overlap import corpus_bleu, corpus_chrf, is_exact
from palmswift.eval.suite import DEFAULT_METRICS
from palmswift.eval.summary import Measurement
from palmswift.eval.think import split_think
from palmswift.files import write_json

_ANSWER_KEYS = ("answer", "prediction", "content", "response", "output", "回答")
_REFERENCE_KEYS = ("reference", "answer", "response", "output", "参考", "回答")
_SHOWN = 20

_EXAMPLES = """
python eval/score.py --predictions answers.jsonl --references refs.jsonl
python eval/score.py --predictions answers.jsonl --references refs.csv --metrics bleu chrf
python eval/score.py --predictions answers.jsonl --references val.jsonl --out scores.json --json
"""


class Entry(NamedTuple):
    """One row's text, and its id if it has one."""

    id: str | None
    text: str
    place: str


def main(argv: Sequence[str] | None = None) -> int:
    """Score and print; 0 done, 2 the files do not fit together."""
    parser = make_parser(
        "eval/score.py",
        "Score answers against references (.jsonl, .json or .csv); nothing is sent anywhere.\n"
        "Rows are joined by `id` when all of both files have one, else by their order.",
        _EXAMPLES,
    )
    parser.add_argument("--predictions", required=True, type=Path, metavar="FILE")
    parser.add_argument("--references", required=True, type=Path, metavar="FILE")
    parser.add_argument(
        "--metrics", nargs="+", choices=list(DEFAULT_METRICS), default=list(DEFAULT_METRICS)
    )
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the scores there too")
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    predictions = read_entries(args.predictions, _ANSWER_KEYS, think=True)
    references = read_entries(args.references, _REFERENCE_KEYS, think=False)
    pairs = joined(predictions, references, args.predictions, args.references)
    measured = measure(pairs, list(dict.fromkeys(args.metrics)))
    document = {
        "pairs": len(pairs),
        "metrics": {name: m.model_dump(exclude_none=True) for name, m in measured.items()},
    }
    if args.out is not None:
        write_json(args.out, document)
    for name, measurement in measured.items():
        of = (
            f"{measurement.count} of {measurement.n}"
            if measurement.count is not None
            else (f"{measurement.n} pairs, {measurement.signature}")
        )
        value = measurement.value or 0.0
        shown = f"{value:.1%}" if measurement.count is not None else f"{value:.2f}"
        console.say(f"{name:<12} {shown:>7}  ({of})")
    return Done(document)


def measure(
    pairs: Sequence[tuple[str, str]], metrics: Sequence[TextMetric]
) -> dict[TextMetric, Measurement]:
    """Each metric over (answer, reference) pairs."""
    answers = [answer for answer, _ in pairs]
    references = [reference for _, reference in pairs]
    measured: dict[TextMetric, Measurement] = {}
    for name in metrics:
        if name == "exact_match":
            count = sum(is_exact(answer, reference) for answer, reference in pairs)
            measured[name] = Measurement(value=count / len(pairs), n=len(pairs), count=count)
            continue
        scorer = corpus_bleu if name == "bleu" else corpus_chrf
        score = scorer(answers, references)
        measured[name] = Measurement(value=score.value, n=len(pairs), signature=score.signature)
    return measured


def read_entries(path: Path, keys: Sequence[str], *, think: bool) -> list[Entry]:
    """The texts of a file; an answer that is null, or was cut inside its thinking, is empty."""
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
        found = _text(row.value, keys)
        if found is None:
            what = f"none of {', '.join(keys)} or `messages` (it has {', '.join(row.value)})"
            problems.append(Problem(what, place))
            continue
        text = split_think(found).answer or "" if think else found
        name = row.value.get("id")
        entries.append(Entry(None if name in (None, "") else str(name), text, place))
    if problems:
        raise InputError(f"{path}: {len(problems)} row(s) cannot be scored", problems[:_SHOWN])
    return entries


def _text(fields: dict[str, Any], keys: Sequence[str]) -> str | None:
    """The row's answer: the last assistant turn of `messages`, or the first of `keys` it has."""
    for key in keys:
        if key in fields and (fields[key] is None or isinstance(fields[key], str)):
            return fields[key] or ""
    turns = fields.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    if isinstance(last, dict) and last.get("role") == "assistant":
        content = last.get("content")
        return content if isinstance(content, str) else None
    return None


def joined(
    predictions: Sequence[Entry], references: Sequence[Entry], first: Path, second: Path
) -> list[tuple[str, str]]:
    """(answer, reference) pairs, by id or by order; InputError when a row has no partner."""
    by_id = all(entry.id is not None for entry in (*predictions, *references))
    if not by_id:
        if len(predictions) != len(references):
            raise InputError(
                f"{first} has {len(predictions)} rows and {second} has {len(references)}",
                remedy="without an `id` in every row of both, rows are joined by their order",
            )
        return [(p.text, r.text) for p, r in zip(predictions, references, strict=True)]
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
    return [(answers[name].text, entry.text) for name, entry in expected.items()]


if __name__ == "__main__":
    raise SystemExit(main())
