"""The command that answers a file of questions; every input comes out once, in its order."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import ChildError, InputError
from palmswift.eval.asking.answers import Answers
from palmswift.eval.asking.asking import Asker, find
from palmswift.eval.asking.batch_input import Form, Input, InputFile, Survey, read_inputs
from palmswift.eval.asking.conversation import content_id
from palmswift.eval.asking.engine import Question, Sampling, Target
from palmswift.eval.asking.journal import Prediction, RequestKey
from palmswift.eval.asking.think import split_think
from palmswift.eval.flags import (
    add_asking_flags,
    add_endpoint_flags,
    add_sampling_flags,
    endpoints_of,
    policy_of,
    sampling_of,
)
from palmswift.eval.run import progress_lines
from palmswift.files import atomic_bytes

__all__ = ["Input", "main", "read_inputs"]

_LABEL = "batch"

_EXAMPLES = """
python eval/batch.py --input questions.txt --endpoint http://127.0.0.1:8000/v1 --out answers.jsonl
python eval/batch.py --input q.csv --column 问题 --endpoint http://127.0.0.1:8000/v1 --out a.jsonl
python eval/batch.py --input q.jsonl --system 你好。 --endpoint http://127.0.0.1:8000 --out a.jsonl
python eval/batch.py --input openai_batch.jsonl --endpoint http://127.0.0.1:8000 --out results.jsonl
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the file; 0 all answered, 4 some requests failed (the same command asks them)."""
    parser = make_parser(
        "eval/batch.py",
        "Answer a file of questions: .txt (one a line), .csv, .xlsx, .json, .jsonl (a question or\n"
        "messages), or an OpenAI batch file (custom_id, url, body). OUT has every input once, in\n"
        "input order, with its text and id. Until it is made, answers are kept beside it, and the\n"
        "same command goes on where it stopped.",
        _EXAMPLES,
    )
    parser.add_argument("--input", required=True, type=Path, metavar="FILE")
    parser.add_argument("--column", help="the column or key that holds the question")
    add_endpoint_flags(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="JSONL")
    parser.add_argument(
        "--format",
        choices=("rows", "openai"),
        help="what OUT is: rows of id, question and answer, or an OpenAI batch output file; "
        "default: as the input",
    )
    parser.add_argument("--system", help="system prompt of every question that has none")
    add_sampling_flags(parser)
    add_asking_flags(parser)
    return run(parser, _body, argv)


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.out.resolve() == args.input.resolve():
        raise InputError(f"--out would overwrite --input: {args.out}")
    file = InputFile(args.input, args.column, args.system)
    survey = file.survey()
    [endpoint] = endpoints_of(args, [args.endpoint], _LABEL)
    policy, sampling = policy_of(args), sampling_of(args)
    found = find(endpoint, policy, fingerprint=not args.no_fingerprint)
    journal = args.out.with_name(f"{args.out.name}.journal.jsonl")
    report, note = progress_lines(console), console.note
    try:
        with Asker(journal, sampling, policy, args.concurrency, report=report, note=note) as asker:
            target = asker.admit(found)
            before = Answers(journal)
            questions = (question for _, question in _asked(file, survey))
            try:
                outcome = asker.ask(target, questions, total=survey.total, answered=before)
            finally:
                before.close()
    except KeyboardInterrupt:
        console.note(f"\nthe answers so far are in {journal}")
        console.note("the same command goes on from there")
        raise
    if outcome.reused:
        console.note(f"{outcome.reused} answers were in {journal} already")
    written = _write(args, file, survey, journal, target, sampling)
    return _done(args, written, console)


class _Written(NamedTuple):
    rows: int
    errors: int
    first_error: str | None


def _write(
    args: argparse.Namespace,
    file: InputFile,
    survey: Survey,
    journal: Path,
    target: Target,
    sampling: Sampling,
) -> _Written:
    """The finished file: a row for each input, in input order."""
    form: Form = args.format or survey.form
    rows = errors = 0
    first_error = None
    answers = Answers(journal)
    try:
        with atomic_bytes(args.out) as stream:
            for item, question in _asked(file, survey):
                key = target.key(question, target.body(question, sampling))
                row = answers.get(key)
                rows += 1
                if (failed := _failure(row)) is not None:
                    errors += 1
                    first_error = first_error or failed
                line = (
                    _openai_row(item, key, row)
                    if form == "openai"
                    else _row(item, row, survey.form)
                )
                stream.write(msgspec.json.encode(line) + b"\n")
    finally:
        answers.close()
    return _Written(rows, errors, first_error)


def _done(args: argparse.Namespace, written: _Written, console: Console) -> Done:
    rows, errors, first_error = written
    console.say(f"{rows - errors} of {rows} answered: {args.out}")
    if errors == rows:
        raise ChildError(f"all {rows} requests failed: {first_error}")
    if errors:
        console.say(f"{errors} requests failed: run the same command again. {first_error}")
    return Done({"out": str(args.out), "inputs": rows, "errors": errors}, 4 if errors else 0)


def _asked(file: InputFile, survey: Survey) -> Iterator[tuple[Input, Question]]:
    """Each input and its question, known by its text, so that lines may be added to the file
    later."""
    for item, rank in zip(file.inputs(survey.form), survey.ranks, strict=True):
        name = content_id(item.content)
        yield item, Question(name, int(rank), item.messages, body=item.body, route=item.route)


def _failure(row: Prediction | None) -> str | None:
    """Why an input has no answer."""
    if row is None:
        return "not asked: no server"
    return row.error.message if row.error is not None else None


def _row(item: Input, row: Prediction | None, form: Form) -> dict[str, Any]:
    """A line of the finished file."""
    line: dict[str, Any] = {"id": item.id}
    if form == "rows":
        line["question"] = item.question
        if len(item.messages) > 1:
            line["messages"] = item.messages
    else:
        line["request"] = item.body
    failed = _failure(row)
    if row is None or failed is not None:
        return {**line, "answer": None, "error": failed}
    answer, reasoning = split_think(row.content, row.reasoning)
    calls = {"tool_calls": row.tool_calls} if row.tool_calls else {}
    return {
        **line,
        "answer": answer,
        "reasoning": reasoning,
        **calls,
        "finish_reason": row.finish_reason,
        "usage": row.usage,
        "seconds": round(row.seconds, 4),
        "error": None,
    }


def _openai_row(item: Input, key: RequestKey, row: Prediction | None) -> dict[str, Any]:
    """A line of an OpenAI batch output file; an HTTP status stands in its `response`."""
    name = f"batch_req_{content_id([*key, item.id])}"
    line: dict[str, Any] = {"id": name, "custom_id": item.id, "response": None, "error": None}
    if row is None or row.error is not None:
        code = row.error.kind if row is not None and row.error is not None else "not_asked"
        line["error"] = {"code": code, "message": _failure(row)}
        if row is not None and row.error is not None and row.error.status is not None:
            told = {"error": {"message": row.error.message, "code": row.error.status}}
            line["response"] = _response(name, row.error.status, told)
        return line
    body: dict[str, Any] = row.reply
    if row.logprobs is not None:
        first = {**body["choices"][0], "logprobs": row.logprobs}
        body = {**body, "choices": [first, *itertools.islice(body["choices"], 1, None)]}
    if row.prompt_logprobs is not None:
        body = {**body, "prompt_logprobs": row.prompt_logprobs}
    line["response"] = _response(name, 200, body)
    return line


def _response(name: str, status: int, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": name, "body": body}


if __name__ == "__main__":
    raise SystemExit(main())
