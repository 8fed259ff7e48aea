"""Reads other tools' results: lm-evaluation-harness samples, EvalScope reviews and predictions.

Checked against files that lm-eval 0.4.13 and EvalScope 1.14.1 wrote (tests/data/foreign).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from palmswift.errors import InputError, Problem
from palmswift.eval.asking.conversation import Case, canonical_hash
from palmswift.eval.asking.journal import Prediction
from palmswift.eval.suites.scoring import ScoredAnswer
from palmswift.eval.suites.suite import Suite

Kind = Literal["journal", "lm_eval", "evalscope_review", "evalscope_prediction"]
_SHOWN = 20


class Foreign(NamedTuple):
    """Answers that another tool has graded."""

    suite: Suite
    """Its cases, without assertions: they are judged already."""
    answers: list[ScoredAnswer]
    notes: list[str]
    """What was left out."""


def kind_of(path: Path) -> Kind:
    """What wrote a JSONL of answers, by its first row; InputError when it is none of ours."""
    row = next(_rows(path), None)
    if row is None:
        raise InputError(f"{path}: there is no row in it")
    keys = row.keys()
    kinds: tuple[tuple[Kind, set[str]], ...] = (
        ("journal", {"request_hash", "endpoint", "case"}),
        ("lm_eval", {"doc_id", "filtered_resps", "target"}),
        ("evalscope_review", {"index", "sample_score"}),
        ("evalscope_prediction", {"index", "model_output", "messages"}),
    )
    for kind, needed in kinds:
        if needed <= keys:
            return kind
    raise InputError(
        f"{path}: not known: its rows have {', '.join(sorted(keys)[:8]) or 'nothing'}",
        remedy="give predictions.jsonl or evaluation_report.json of eval/run.py, samples_*.jsonl "
        "of lm-eval (--log_samples), or reviews/…/*.jsonl of EvalScope",
    )


def read_graded(path: Path, label: str) -> Foreign:
    """The graded answers of an lm-eval samples file or an EvalScope review file.

    A grade of 0 or 1 becomes passed or failed, one between them a score; InputError names rows
    that have neither.
    """
    read = _lm_eval if kind_of(path) == "lm_eval" else _evalscope
    cases: dict[str, Case] = {}
    answers: list[ScoredAnswer] = []
    problems: list[Problem] = []
    notes: dict[str, None] = {}
    for number, row in enumerate(_rows(path), start=1):
        try:
            found = read(row, label)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            problems.append(Problem(f"{type(error).__name__}: {error}", f"{path}:{number}"))
            continue
        if isinstance(found, str):
            notes[found] = None
            continue
        case, answer = found
        cases.setdefault(case.id, case)
        answers.append(answer)
    if problems:
        raise InputError(f"{path}: {len(problems)} rows are not readable", problems[:_SHOWN])
    grades = {answer.score for answer in answers}
    if grades <= {0.0, 1.0}:
        answers = [a.model_copy(update={"passed": a.score == 1.0}) for a in answers]
    most: dict[str, int] = {}
    for answer in answers:
        most[answer.case] = max(most.get(answer.case, 0), answer.repeat + 1)
    listed = [case.model_copy(update={"repeats": most[case.id]}) for case in cases.values()]
    return Foreign(Suite(name=_name(path), cases=listed), answers, list(notes))


def as_predictions(path: Path, label: str, suites: Sequence[Suite]) -> list[Prediction]:
    """EvalScope predictions as rows of the journal, found in the suites by what was asked."""
    asked = {canonical_hash(case.conversation()): case for suite in suites for case in suite.cases}
    predictions: list[Prediction] = []
    seen: dict[str, int] = {}
    for row in _rows(path):
        turns = [
            {"role": turn["role"], "content": turn["content"]}
            for turn in row["messages"]
            if turn.get("role") in ("system", "user", "assistant")
        ]
        if turns and turns[-1]["role"] == "assistant":
            turns.pop()
        case = asked.get(canonical_hash(turns))
        if case is None:
            continue
        request = {"model": row.get("model"), "messages": case.conversation()}
        choice = row["model_output"]["choices"][0]
        repeat = seen.get(case.id, 0)
        seen[case.id] = repeat + 1
        predictions.append(
            Prediction(
                endpoint=label,
                base_url="-",
                case=case.id,
                repeat=repeat,
                request=request,
                request_hash=canonical_hash(request),
                content=choice["message"]["content"],
                finish_reason=choice.get("stop_reason"),
                usage=row["model_output"].get("usage"),
                seconds=float(row["model_output"].get("time") or 0.0),
                attempts=1,
                started_at="",
            )
        )
    if not predictions:
        raise InputError(
            f"{path}: none of its questions is in the suite",
            remedy="the suite's system prompt and questions must be those that were asked",
        )
    return predictions


def _lm_eval(row: dict[str, Any], label: str) -> tuple[Case, ScoredAnswer] | str:
    if row.get("filter", "none") not in ("none", "strict-match"):
        return f"rows of the filter {row['filter']!r} (the answers as graded by the first are read)"
    name = f"{row['doc_id']}-{str(row.get('doc_hash', ''))[:8]}"
    first = next(iter(row["arguments"].values()))["arg_0"]
    case = Case(id=name, messages=_messages(first[0] if isinstance(first, list) else first))
    case = case.model_copy(update={"reference": str(row["target"])})
    value = float(row[row["metrics"][0]])
    said = row["filtered_resps"][0]
    return case, _graded(label, case, 0, value, said if isinstance(said, str) else str(said))


def _evalscope(row: dict[str, Any], label: str) -> tuple[Case, ScoredAnswer] | str:
    result = row["sample_score"]
    score = result["score"]
    turns = [
        {"role": turn["role"], "content": turn["content"]}
        for turn in row["messages"]
        if turn["role"] in ("system", "user", "assistant")
    ]
    if turns[-1]["role"] == "assistant":
        turns.pop()
    target = row["target"]
    case = Case.model_validate(
        {
            "id": str(result.get("group_id", row["index"])),
            "messages": turns,
            "reference": str(target[0] if isinstance(target, list) else target),
        }
    )
    value = float(score["value"][score["main_score_name"]])
    repeat = int(result.get("generation_index", 0))
    return case, _graded(label, case, repeat, value, str(score["prediction"]))


def _graded(label: str, case: Case, repeat: int, value: float, said: str) -> ScoredAnswer:
    # EvalScope's Rouge of equal texts is 0.999999995.
    if not -1e-9 <= value <= 1 + 1e-9:
        raise ValueError(f"the grade {value:g} is not between 0 and 1")
    grade = float(round(value)) if abs(value - round(value)) < 1e-6 else value
    return ScoredAnswer(
        endpoint=label, case=case.id, repeat=repeat, state="answered", answer=said, score=grade
    )


def _messages(text: str) -> list[Any]:
    """What was asked: the turns of a chat as JSON, or the text of a completion."""
    try:
        turns = json.loads(text)
    except ValueError:
        turns = None
    if isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns):
        kept = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        return kept if kept[-1]["role"] == "user" else kept[:-1]
    return [{"role": "user", "content": text}]


def _name(path: Path) -> str:
    """The task: of `samples_gsm8k_2026-….jsonl` gsm8k, else the file's name."""
    stem = path.stem.removeprefix("samples_")
    head, _, tail = stem.rpartition("_")
    return head if head and tail[:2].isdigit() else stem


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    if not line.endswith("\n"):
                        return  # what a killed run leaves
                    raise InputError(f"{path}:{number}: not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: not a JSON object")
                yield row
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable: {error}") from error
