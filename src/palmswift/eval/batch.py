"""The command that answers a file of questions; every input comes out once, in its order."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from palmswift.command import Console, Done, make_parser, run
from palmswift.data.encodings import read_text
from palmswift.data.read import read_rows
from palmswift.data.row import Rejection
from palmswift.errors import ChildError, InputError, Problem
from palmswift.eval.conversation import Case, content_id, messages_of
from palmswift.eval.engine import Question, ask_all, find_model, request_body, request_key
from palmswift.eval.flags import (
    add_asking_flags,
    add_endpoint_flags,
    add_sampling_flags,
    endpoints_of,
    policy_of,
    sampling_of,
)
from palmswift.eval.journal import Journal, Prediction, read_journal
from palmswift.eval.loop import run_interruptible
from palmswift.eval.run import progress_lines
from palmswift.eval.think import split_think
from palmswift.files import write_jsonl

_LABEL = "batch"
_QUESTION_KEYS = ("question", "query", "prompt", "instruction", "input", "user", "问题", "提问")
_SHOWN = 20

_EXAMPLES = """
python eval/batch.py --input questions.txt --endpoint http://127.0.0.1:8000/v1 --out answers.jsonl
python eval/batch.py --input q.csv --column 问题 --endpoint http://127.0.0.1:8000/v1 --out a.jsonl
python eval/batch.py --input q.jsonl --system 你好。 --endpoint http://127.0.0.1:8000 --out a.jsonl
"""


class Input(NamedTuple):
    """One thing to answer."""

    id: str
    """Its own `id`, else its number in the file, from 1."""
    case: Case


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the file; 0 all answered, 4 some requests failed (the same command asks them)."""
    parser = make_parser(
        "eval/batch.py",
        "Answer a file of questions: .txt (one a line), .csv, .json, .jsonl (a question, or\n"
        "messages). OUT has every input once, in input order, with its text and id; while it is\n"
        "being made, answers are kept beside it, and the same command goes on where it stopped.",
        _EXAMPLES,
    )
    parser.add_argument("--input", required=True, type=Path, metavar="FILE")
    parser.add_argument("--column", help="the column or key that holds the question")
    add_endpoint_flags(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="JSONL")
    parser.add_argument("--system", help="system prompt of every question that has none")
    add_sampling_flags(parser)
    add_asking_flags(parser)
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.out.resolve() == args.input.resolve():
        raise InputError(f"--out would overwrite --input: {args.out}")
    inputs = read_inputs(args.input, args.column)
    if args.system is not None:
        inputs = [Input(item.id, item.case.with_system(args.system)) for item in inputs]
    journal_path = args.out.with_name(f"{args.out.name}.journal.jsonl")
    try:
        rows = _answered(args, inputs, journal_path, console)
    except KeyboardInterrupt:
        console.note(f"\nthe answers so far are in {journal_path}")
        console.note("the same command goes on from there")
        raise
    write_jsonl(args.out, rows)
    errors = [row["error"] for row in rows if row["error"]]
    console.say(f"{len(rows) - len(errors)} of {len(rows)} answered: {args.out}")
    if len(errors) == len(rows):
        raise ChildError(f"all {len(rows)} requests failed: {errors[0]}")
    if errors:
        console.say(f"{len(errors)} requests failed: run the same command again. {errors[0]}")
    document = {"out": str(args.out), "inputs": len(rows), "errors": len(errors)}
    return Done(document, 4 if errors else 0)


def _answered(
    args: argparse.Namespace, inputs: Sequence[Input], journal_path: Path, console: Console
) -> list[dict[str, Any]]:
    """The output rows, once everything was asked."""
    [endpoint] = endpoints_of(args, [args.endpoint], _LABEL)
    policy, sampling = policy_of(args), sampling_of(args)
    model = run_interruptible(find_model(endpoint, policy))
    questions = _questions(inputs)
    with Journal(journal_path) as journal:
        answered = {row.key for row in read_journal(journal_path) if row.error is None}
        outcome = run_interruptible(
            ask_all(
                endpoint,
                model,
                questions,
                journal,
                answered,
                sampling,
                policy,
                args.concurrency,
                progress_lines(console),
            )
        )
    if outcome.reused:
        console.note(f"{outcome.reused} answers were in {journal_path} already")
    latest = {row.key: row for row in read_journal(journal_path)}
    keys = [
        request_key(endpoint, question, request_body(endpoint, model, question, sampling))
        for question in questions
    ]
    return [_row(item, latest.get(key)) for item, key in zip(inputs, keys, strict=True)]


def _questions(inputs: Sequence[Input]) -> list[Question]:
    """A question an input, known by its text, so that lines may be added to the file later."""
    seen: Counter[str] = Counter()
    questions = []
    for item in inputs:
        messages = item.case.conversation()
        name = content_id(messages)
        questions.append(Question(name, seen[name], messages))
        seen[name] += 1
    return questions


def _row(item: Input, row: Prediction | None) -> dict[str, Any]:
    """A line of the finished file."""
    line: dict[str, Any] = {"id": item.id, "question": item.case.turns[-1].content}
    if len(item.case.turns) > 1:
        line["messages"] = item.case.conversation()
    if row is None or row.error is not None:
        error = row.error.message if row is not None and row.error else "not asked: no server"
        return {**line, "answer": None, "error": error}
    answer, reasoning = split_think(row.content, row.reasoning)
    return {
        **line,
        "answer": answer,
        "reasoning": reasoning,
        "finish_reason": row.finish_reason,
        "usage": row.usage,
        "seconds": round(row.seconds, 4),
        "error": None,
    }


def read_inputs(path: Path, column: str | None = None) -> list[Input]:
    """The questions of a file; InputError with every row that has none."""
    inputs, problems = [], []
    for number, (place, value) in enumerate(_values(path), start=1):
        try:
            inputs.append(_input(value, number, column))
        except ValidationError as error:
            problems.append(Problem(error.errors()[0]["msg"].removeprefix("Value error, "), place))
        except ValueError as error:
            problems.append(Problem(str(error), place))
    ids = Counter(item.id for item in inputs)
    problems += [
        Problem(f"the id {name!r} is given {count} times", str(path))
        for name, count in ids.items()
        if count > 1
    ]
    if problems:
        keys = ", ".join(_QUESTION_KEYS)
        raise InputError(
            f"{path}: {len(problems)} row(s) cannot be asked",
            problems[:_SHOWN],
            remedy="" if column else f"--column NAME says where the question is, if not in {keys}",
        )
    return inputs


class _Value(NamedTuple):
    place: str
    value: Any


def _values(path: Path) -> list[_Value]:
    """What stands in the file: a text a line of .txt, else a JSON value or a record a row."""
    if path.suffix.lower() == ".txt":
        lines = enumerate(read_text(path).text.split("\n"), start=1)
        return [_Value(f"{path}:{number}", line.strip()) for number, line in lines if line.strip()]
    return [
        _Value(str(row.place), None if isinstance(row, Rejection) else row.value)
        for row in read_rows(path)
    ]


def _input(value: Any, number: int, column: str | None) -> Input:
    """One input; ValueError says what the row lacks."""
    if isinstance(value, str) and value.strip():
        return Input(str(number), Case(id=str(number), question=value))
    if not isinstance(value, dict):
        raise ValueError("the row is not a question, nor an object that holds one")
    name = str(value["id"]) if value.get("id") not in (None, "") else str(number)
    if column is None and isinstance(value.get("messages"), list):
        turns = messages_of(value["messages"])
        while turns and turns[-1].role == "assistant":
            turns.pop()
        return Input(name, Case(id=name, messages=turns))
    keys = [column] if column else [key for key in _QUESTION_KEYS if key in value]
    if not keys or not isinstance(value.get(keys[0]), str) or not value[keys[0]].strip():
        has = ", ".join(map(str, value)) or "nothing"
        raise ValueError(f"no question in this row (it has {has})")
    return Input(name, Case(id=name, question=value[keys[0]]))


if __name__ == "__main__":
    raise SystemExit(main())
