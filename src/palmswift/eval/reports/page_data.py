"""The cases of a report as the compact data that its page's script shows them from."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Literal, NamedTuple

from palmswift.eval.reports.report import CaseResult, EvaluationReport
from palmswift.eval.suites.scoring import ScoredAnswer
from palmswift.eval.verdicts.regressions import Regression, changes

Outcome = Literal[
    "pass", "fail", "undecided", "same", "differs", "shown", "no_answer", "error", "not_asked"
]
"""`same` and `differs`: compared with the reference but not judged."""

_PLAIN = 400_000
"""Bytes of data up to which the page holds it as it is, which a person can read in the file."""
_BUDGET = 1_700_000
"""Bytes of packed data above which long texts are shortened, for the page to stay below 2 MB."""
_SHORTEST = 400


class Data(NamedTuple):
    """The page's data block."""

    text: str
    """JSON, or base64 of it packed by zlib."""
    packed: bool
    shortened: int | None
    """To how many characters texts were cut; None: all are whole."""


def page_data(report: EvaluationReport) -> Data:
    """The block; whole texts unless the page would grow above 2 MB."""
    limit: int | None = None
    while True:
        text = _json(report, limit)
        if len(text) <= _PLAIN:
            return Data(text, False, limit)
        packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
        if len(packed) <= _BUDGET or limit == _SHORTEST:
            return Data(packed, True, limit)
        limit = 6400 if limit is None else max(_SHORTEST, limit // 2)


def outcome_of(answer: ScoredAnswer) -> Outcome:
    """The one word for what became of an answer."""
    if answer.state != "answered":
        return answer.state
    if answer.undecided:
        return "undecided"
    if answer.passed is not None:
        return "pass" if answer.passed else "fail"
    if answer.exact is not None:
        return "same" if answer.exact else "differs"
    return "shown"


def _json(report: EvaluationReport, limit: int | None) -> str:
    drops: dict[str, dict[str, float]] = {}
    for verdict in report.comparisons:
        found: list[Regression] = changes(report, verdict.base_label, verdict.tuned_label)
        for change in found:
            drops.setdefault(change.case.id, {})[verdict.tuned_label] = round(-change.drop, 4)
    document = {
        "labels": report.labels,
        "cases": [_case(case, drops.get(case.id, {}), limit) for case in report.cases],
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # Nothing in a script element ends it but this; the JSON stays the same.
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _case(case: CaseResult, change: dict[str, float], limit: int | None) -> dict[str, Any]:
    return _full(
        id=case.id,
        suite=case.suite,
        tags=case.tags,
        messages=[[m.role, _cut(_content(m.content), limit)] for m in case.messages],
        reference=_cut(case.reference, limit),
        leaked=case.leaked,
        change=change,
        answers=[_answer(answer, case.reference, limit) for answer in case.answers],
    )


def _answer(answer: ScoredAnswer, reference: str | None, limit: int | None) -> dict[str, Any]:
    # `exact` against the reference says nothing that the outcome and the reference do not.
    checks = [
        [a.state, a.kind, _cut(a.expected, limit), a.detail or ""]
        for a in answer.assertions
        if a.expected != reference or a.state == "error"
    ]
    return _full(
        of=answer.endpoint,
        repeat=answer.repeat,
        outcome=outcome_of(answer),
        text=_cut(answer.answer, limit),
        thinking=_cut(answer.reasoning, limit),
        reason=answer.reason,
        checks=checks,
        scores={name: round(value, 4) for name, value in answer.scores.items()},
        finish=None if answer.finish_reason == "stop" else answer.finish_reason,
        seconds=None if answer.seconds is None else round(answer.seconds, 3),
    )


def _content(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _cut(text: str | None, limit: int | None) -> str | None:
    if text is None or limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]} … (+{len(text) - limit})"


def _full(**fields: Any) -> dict[str, Any]:
    """The fields that say something; an empty answer is one that does."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and (value or name in ("text", "seconds", "reference"))
    }
