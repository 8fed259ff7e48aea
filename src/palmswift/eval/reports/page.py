"""The evaluation report as one HTML file that needs nothing else: no server, no network."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
from pathlib import Path
from typing import Literal, NamedTuple

from palmswift.eval.measures.metrics import METRICS
from palmswift.eval.reports.page_charts import Forest, forest, times
from palmswift.eval.reports.page_data import Outcome, outcome_of, page_data
from palmswift.eval.reports.report import EvaluationReport
from palmswift.eval.reports.table import bound_words, gate_words, groups
from palmswift.eval.suites.scoring import ScoredAnswer
from palmswift.eval.verdicts.gate import GateResult
from palmswift.eval.verdicts.regressions import Regression, regressions
from palmswift.eval.verdicts.verdict import ShipVerdict
from palmswift.eval.verdicts.verdict_words import (
    ROLES,
    Both,
    amount_words,
    headline,
    interval_words,
    measure_words,
    p_words,
    sentences,
    value_words,
    word_of,
)

_TEMPLATES = Path(__file__).parent / "templates"
_SHARED = Path(__file__).parents[2] / "data" / "templates"
"""The frame of the data report's page: both look alike and switch the language alike."""
_LONGEST_DIFF = 2000
"""Characters; difflib is quadratic."""
_LEAST_ALIKE = 0.3
"""Below this share of common characters a coloured difference is noise."""
_FIRST = 20
"""Regressions that stand on top."""

OUTCOMES: dict[Outcome, Both] = {
    "pass": Both("✓ passed", "✓ 通过"),
    "fail": Both("✗ failed", "✗ 未通过"),
    "undecided": Both("? cannot be judged", "? 无法判定"),
    "same": Both("= identical", "= 一致"),
    "differs": Both("≠ differs", "≠ 不同"),
    "shown": Both("shown", "仅展示"),
    "no_answer": Both("∅ no answer", "∅ 无回答"),
    "error": Both("! error", "! 出错"),
    "not_asked": Both("– not asked", "– 未提问"),
}


class Segment(NamedTuple):
    """A piece of a difference: common text, only in the answer, or only in the reference."""

    kind: Literal["equal", "insert", "delete"]
    text: str


class GateView(NamedTuple):
    """A gate's result, what was asked and what was observed."""

    result: GateResult
    bound: str
    observed: str


class RegressionView(NamedTuple):
    """A case that got worse: the first repeat at which it did, at both models."""

    found: Regression
    question: str
    reference: str | None
    before: ScoredAnswer | None
    after: ScoredAnswer | None
    segments: list[Segment]
    """What turns the first model's answer into the second's; empty where that would not help."""


class VerdictView(NamedTuple):
    """A verdict with its chart and its first regressions."""

    verdict: ShipVerdict
    headline: Both
    sentences: list[Both]
    chart: Forest | None
    worse: list[RegressionView]
    worse_in_all: int


def render(report: EvaluationReport) -> str:
    """The report's HTML. Its content policy lets only the page's own style and script run."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_TEMPLATES, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        amount=amount_words,
        interval=interval_words,
        measure_of=measure_words,
        outcome_of=outcome_of,
        p_words=p_words,
        value_of=value_words,
        word_of=word_of,
        roles=ROLES,
    )
    style = _text(_SHARED / "report.css") + _text(_TEMPLATES / "evaluation.css")
    script = _text(_SHARED / "report.js") + _text(_TEMPLATES / "evaluation.js")
    table = groups(report)
    return environment.get_template("evaluation.html.j2").render(
        title=f"{report.suite}: evaluation report",
        style=style,
        script=script,
        policy="default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        report=report,
        verdicts=[_verdict_view(report, verdict) for verdict in report.comparisons],
        groups=table,
        gates=[GateView(gate, bound_words(gate.gate), gate_words(gate)) for gate in report.gates],
        tags=list(dict.fromkeys(tag for case in report.cases for tag in case.tags)),
        outcomes=OUTCOMES,
        data=page_data(report),
        words=json.dumps({key: list(both) for key, both in OUTCOMES.items()}, ensure_ascii=False),
        times=times(report),
        signatures=_signatures(report),
        metrics=METRICS,
    )


def differences(reference: str, answer: str) -> list[Segment]:
    """What turns `reference` into `answer`, character by character; empty when it would not help:
    equal, too long, or too little in common."""
    if answer == reference or max(len(answer), len(reference)) > _LONGEST_DIFF:
        return []
    matcher = difflib.SequenceMatcher(None, reference, answer, autojunk=False)
    if matcher.ratio() < _LEAST_ALIKE:
        return []
    segments = []
    for kind, i, j, k, n in matcher.get_opcodes():
        if kind == "equal":
            segments.append(Segment("equal", answer[k:n]))
        if kind in ("delete", "replace"):
            segments.append(Segment("delete", reference[i:j]))
        if kind in ("insert", "replace"):
            segments.append(Segment("insert", answer[k:n]))
    return segments


def _verdict_view(report: EvaluationReport, verdict: ShipVerdict) -> VerdictView:
    worse = regressions(report, verdict.base_label, verdict.tuned_label)
    return VerdictView(
        verdict=verdict,
        headline=headline(verdict),
        sentences=list(sentences(verdict)),
        chart=forest(verdict),
        worse=[_regression_view(found, verdict) for found in worse[:_FIRST]],
        worse_in_all=len(worse),
    )


def _regression_view(found: Regression, verdict: ShipVerdict) -> RegressionView:
    case = found.case
    before = {a.repeat: a for a in case.answers if a.endpoint == verdict.base_label}
    after = [a for a in case.answers if a.endpoint == verdict.tuned_label]
    fell = [a for a in after if a.repeat in before and a.passed is False] or after
    second = fell[0] if fell else None
    first = before.get(second.repeat) if second is not None else None
    segments = []
    if first is not None and second is not None and first.answer and second.answer:
        segments = differences(first.answer.strip(), second.answer.strip())
    return RegressionView(found, case.messages[-1].content, case.reference, first, second, segments)


def _signatures(report: EvaluationReport) -> list[str]:
    found = {
        f"{name} {measurement.signature}": None
        for summary in report.summaries
        for name, measurement in summary.metrics.items()
        if measurement.signature
    }
    return list(found)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
