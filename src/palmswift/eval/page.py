"""The evaluation report as one HTML file that needs nothing else: no server, no network."""

from __future__ import annotations

import base64
import difflib
import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2

from palmswift.eval.conversation import Message
from palmswift.eval.gate import GateResult
from palmswift.eval.metrics import MetricName
from palmswift.eval.report import CaseResult, EvaluationReport
from palmswift.eval.scoring import ScoredAnswer
from palmswift.eval.table import bound_words, gate_words, groups

_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST_DIFF = 2000
"""Characters; difflib is quadratic."""
_LEAST_ALIKE = 0.3
"""Below this share of common characters a coloured difference is noise."""

Outcome = Literal["pass", "fail", "same", "differs", "shown", "no_answer", "error", "not_asked"]
"""`same` and `differs`: compared with the reference but not judged."""

METRIC_LABELS: dict[MetricName, str] = {
    "pass_rate": "Passed · 通过",
    "exact_match": "Exact · 完全一致",
    "chrf": "chrF (0-100)",
    "bleu": "BLEU (0-100)",
    "answer_rate": "Answered · 有回答",
    "error_rate": "Errors · 出错",
    "latency_mean": "Time, mean · 平均耗时",
    "latency_p50": "Time, median · 中位耗时",
    "latency_p95": "Time, 95th percentile · 95% 耗时",
}


class Segment(NamedTuple):
    """A piece of a difference: common text, only in the answer, or only in the reference."""

    kind: Literal["equal", "insert", "delete"]
    text: str


class AnswerView(NamedTuple):
    """An answer and how it is shown."""

    answer: ScoredAnswer
    outcome: Outcome
    segments: list[Segment]
    """Empty where the answer is shown plainly."""


class GateView(NamedTuple):
    """A gate's result, what was asked and what was observed."""

    result: GateResult
    bound: str
    observed: str


class CaseView(NamedTuple):
    """A case and its answers, in the order of the endpoints."""

    case: CaseResult
    before: list[Message]
    """The turns before the question, less the system prompt that all cases share."""
    answers: list[AnswerView]


def render(report: EvaluationReport) -> str:
    """The report's HTML. Its content policy lets only the page's own script run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    table = groups(report)
    system = _shared_system(report)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        report=report,
        groups=table,
        metric_labels=METRIC_LABELS,
        system=system,
        cases=[_case_view(case, system) for case in report.cases],
        gates=[GateView(gate, bound_words(gate.gate), gate_words(gate)) for gate in report.gates],
        tags=[group.tag for group in table if group.tag is not None],
        signatures=_signatures(report),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=digest,
    )


def outcome_of(answer: ScoredAnswer) -> Outcome:
    """The one word for what became of an answer."""
    if answer.state != "answered":
        return answer.state
    if answer.passed is not None:
        return "pass" if answer.passed else "fail"
    if answer.exact is not None:
        return "same" if answer.exact else "differs"
    return "shown"


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


def _shared_system(report: EvaluationReport) -> str | None:
    """The system prompt that every case has, if there is one."""
    prompts = {
        case.messages[0].content if case.messages[0].role == "system" else None
        for case in report.cases
    }
    return prompts.pop() if len(prompts) == 1 else None


def _case_view(case: CaseResult, system: str | None) -> CaseView:
    return CaseView(
        case=case,
        before=case.messages[1 if system is not None else 0 : -1],
        answers=[_answer_view(answer, case.reference) for answer in case.answers],
    )


def _answer_view(answer: ScoredAnswer, reference: str | None) -> AnswerView:
    segments = []
    if answer.answer is not None and reference is not None:
        segments = differences(reference.strip(), answer.answer.strip())
    return AnswerView(answer, outcome_of(answer), segments)


def _signatures(report: EvaluationReport) -> list[str]:
    found = {
        f"{name} {measurement.signature}": None
        for summary in report.summaries
        for name, measurement in summary.metrics.items()
        if measurement.signature
    }
    return list(found)
