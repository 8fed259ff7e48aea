"""The evaluation report: what was asked of whom, how it went, and whether the gates hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.errors import InputError
from palmswift.eval.asking.conversation import Case, Message
from palmswift.eval.asking.journal import Prediction
from palmswift.eval.suites.dialogue import Answers
from palmswift.eval.suites.scoring import ScoredAnswer, score
from palmswift.eval.suites.several import Part, clusters_of, parts_of
from palmswift.eval.suites.suite import Suite
from palmswift.eval.suites.summary import Summary, summarise
from palmswift.eval.verdicts.comparison import (
    DEFAULTS,
    Comparison,
    Options,
    Role,
    compare_measure,
    joined,
    pair,
)
from palmswift.eval.verdicts.gate import LEAST_AGREEMENT, Gate, GateResult, Trust, hold
from palmswift.eval.verdicts.verdict import ShipVerdict, ship_verdict

if TYPE_CHECKING:
    from palmswift.eval.judging.judge_report import JudgeReport
    from palmswift.eval.measures.drift import Drift
    from palmswift.eval.verdicts.contamination import Contamination  # numpy, when it is used

Leak = Literal["question", "passage", "answer"]

Verdict = Literal["passed", "failed", "incomplete", "no_gates"]

REPORT_VERSION = 2

JSON_NAME = "evaluation_report.json"
CSV_NAME = "evaluation_report.csv"
HTML_NAME = "evaluation_report.html"
MARKDOWN_NAME = "evaluation_summary.md"
JUNIT_NAME = "evaluation_junit.xml"
PREDICTIONS_NAME = "predictions.jsonl"


class EndpointInfo(BaseModel):
    """What was tested under a label, taken from the requests themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    base_urls: list[str]
    requests: list[dict[str, Any]]
    """The different request settings that were used (model, max_tokens, temperature, ...)."""
    first_at: str | None
    """When the first and the last of its answers were asked for; UTC."""
    last_at: str | None


class CaseResult(BaseModel):
    """One case and all answers to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    suite: str | None = None
    """Null in reports of version 1."""
    tags: list[str]
    messages: list[Message]
    """What was sent."""
    reference: str | None
    leaked: Leak | None = None
    """How it stands in the training data; null: it does not, or was not looked for."""
    answers: list[ScoredAnswer]


class SuiteInfo(BaseModel):
    """A suite that was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    role: Role = "task"
    margin: float | None = None
    primary: str | None = None
    cases: int
    """How many were asked."""
    cases_in_suite: int
    """Before `--max-samples`; fewer cases asked make this a quick look, not a verdict."""


class ContaminationInfo(BaseModel):
    """What of the suites stands in the training data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: list[str]
    rows: int
    question: int
    """Cases whose whole question was trained on."""
    passage: int
    """Further cases of whose question a run of 13 words or 20 Chinese characters was."""
    answer: int
    """Further cases of whose reference that is true; their questions are new."""


class JudgeInfo(BaseModel):
    """How far a judge can be trusted by one rubric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rubric: str
    judge: str
    agreement: float | None
    """Weighted kappa with people; null: not known."""
    can_gate: bool
    why: str


class EvaluationReport(BaseModel):
    """`evaluation_report.json`; eval/report.schema.json is its schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", title="palmswift evaluation report", protected_namespaces=()
    )

    version: Literal[1, 2] = 2
    """2 has several suites, verdicts and contamination; reports of version 1 are read too."""
    suite: str
    """The suites' names, joined by " + "."""
    description: str
    created_at: str
    cases_in_suite: int
    """Before `--max-samples`; fewer cases below make this a quick look, not a verdict."""
    verdict: Verdict
    """Of the gates; `comparisons` has the verdict on each model against the base."""
    endpoints: list[EndpointInfo]
    """`base` first, the rest in order of appearance."""
    suites: list[SuiteInfo] = []
    summaries: list[Summary]
    gates: list[GateResult]
    comparisons: list[ShipVerdict] = []
    """Each other endpoint against the first."""
    contamination: ContaminationInfo | None = None
    """Null: the training data was not given."""
    judges: list[JudgeInfo] = []
    """By rubric, how far the judge of `judge.RUBRIC` agrees with people."""
    cases: list[CaseResult]

    @property
    def labels(self) -> list[str]:
        """The endpoints' labels, `base` first."""
        return [endpoint.label for endpoint in self.endpoints]

    @property
    def unanswered(self) -> int:
        """Requests that ended in an error or were not made."""
        return sum(s.errors + s.not_asked for s in self.summaries if s.tag is None and not s.suite)

    @property
    def quick(self) -> bool:
        """Whether only a part of the cases was asked."""
        return len(self.cases) < self.cases_in_suite

    def summary(self, endpoint: str, tag: str | None = None) -> Summary:
        """The summary of an endpoint's answers to a tag's cases, or to all; KeyError if none."""
        for summary in self.summaries:
            if summary.endpoint == endpoint and summary.tag == tag and summary.suite is None:
                return summary
        raise KeyError((endpoint, tag))

    def comparison(self, label: str) -> ShipVerdict | None:
        """The verdict on the endpoint called `label` against the first; None for the first."""
        return next((v for v in self.comparisons if v.tuned_label == label), None)


class MeasuredDrift(NamedTuple):
    """What eval/perplexity.py found of two models on ordinary text."""

    label: str
    """The model that was held against the other."""
    drift: Drift


class Against(NamedTuple):
    """What answers are held against besides their suites."""

    contamination: Contamination | None = None
    """What of the suites stands in the training data; None: not looked for."""
    judges: JudgeReport | None = None
    """What a judge has said of these answers, and how far it can be trusted; None: not asked."""
    drift: MeasuredDrift | None = None
    """How ordinary text fares; None: not measured."""
    options: Options = DEFAULTS


NOTHING = Against()


def build_report(
    suites: Suite | Sequence[Part],
    predictions: Sequence[Prediction],
    labels: Sequence[str] = (),
    against: Against = NOTHING,
) -> EvaluationReport:
    """The report on one suite, or on parts of several, from journalled predictions.

    `labels` are endpoints to report on even when they have no row yet; every label that the
    journal has an answer from is reported on too.
    """
    parts = parts_of([suites]) if isinstance(suites, Suite) else list(suites)
    cases = [case for part in parts for case in part.cases]
    rows = Answers(cases, predictions).rows
    found = dict.fromkeys([*(row.endpoint for row in rows), *labels])
    ordered = sorted(found, key=lambda label: label != "base")
    scored = [
        answer
        for part in parts
        for answer in score(part.cases, part.suite.metrics, rows, ordered, folder=part.suite.folder)
    ]
    if against.judges is not None:
        from palmswift.eval.judging.judge_report import with_judgements

        scored = with_judgements(scored, against.judges.judgements)
    return report_of(parts, scored, [_endpoint(label, rows) for label in ordered], against)


def report_of(
    parts: Sequence[Part],
    scored: Sequence[ScoredAnswer],
    endpoints: Sequence[EndpointInfo],
    against: Against = NOTHING,
) -> EvaluationReport:
    """The report on scored answers, wherever they are from; `endpoints` in their order."""
    labels = [endpoint.label for endpoint in endpoints]
    cases = [case for part in parts for case in part.cases]
    metrics = list(dict.fromkeys(name for part in parts for name in part.suite.metrics))
    summaries = summarise(cases, metrics, scored, labels)
    gates: list[GateResult] = []
    for part in parts:
        ids = {case.id for case in part.cases}
        own = [answer for answer in scored if answer.case in ids]
        of_suite = summaries
        if len(parts) > 1:
            of_suite = [
                summary.model_copy(update={"suite": part.suite.name})
                for summary in summarise(part.cases, part.suite.metrics, own, labels)
            ]
            summaries = [*summaries, *(s for s in of_suite if s.tag is None)]
        gates += _gates(part, own, of_suite, labels, against)
    by_case: dict[str, list[ScoredAnswer]] = {}
    for answer in scored:
        by_case.setdefault(answer.case, []).append(answer)
    return EvaluationReport(
        suite=" + ".join(part.suite.name for part in parts),
        description=" ".join(p.suite.description for p in parts if p.suite.description),
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cases_in_suite=sum(len(part.suite.cases) for part in parts),
        verdict=_verdict(summaries, gates),
        endpoints=list(endpoints),
        suites=[
            SuiteInfo(
                name=part.suite.name,
                description=part.suite.description,
                role=part.suite.role,
                margin=part.suite.margin,
                primary=part.suite.primary,
                cases=len(part.cases),
                cases_in_suite=len(part.suite.cases),
            )
            for part in parts
        ],
        summaries=summaries,
        gates=gates,
        comparisons=_comparisons(parts, scored, labels, gates, against),
        contamination=_contamination_info(against.contamination),
        judges=_judges(against.judges),
        cases=[
            _case(case, part.suite.name, by_case.get(case.id, []), against.contamination)
            for part in parts
            for case in part.cases
        ],
    )


def _gates(
    part: Part,
    scored: Sequence[ScoredAnswer],
    summaries: Sequence[Summary],
    labels: Sequence[str],
    against: Against,
) -> list[GateResult]:
    """The gates of one suite; a comparison for `non_inferior_to` is made where a gate asks."""

    def compare(gate: Gate, label: str, other: str) -> Comparison:
        own = [a for a in scored if gate.tag is None or gate.tag in a.tags]
        first = [answer for answer in own if answer.endpoint == other]
        second = [answer for answer in own if answer.endpoint == label]
        plan = part.plan
        if gate.margin is not None:
            plan = plan.model_copy(update={"margin": gate.margin})
        pairing = joined(pair(first, second, gate.metric, clusters_of([part])).values())
        return compare_measure(plan, gate.metric, pairing, against.options, tag=gate.tag)

    return hold(
        part.suite.gates,
        summaries,
        suite=part.suite.name,
        base=labels[0] if labels else None,
        compare=compare,
        judges=_trust(against.judges),
    )


def _comparisons(
    parts: Sequence[Part],
    scored: Sequence[ScoredAnswer],
    labels: Sequence[str],
    gates: Sequence[GateResult],
    against: Against,
) -> list[ShipVerdict]:
    by_label: dict[str, list[ScoredAnswer]] = {label: [] for label in labels}
    for answer in scored:
        by_label[answer.endpoint].append(answer)
    safety = {part.suite.name for part in parts if part.suite.role == "safety"}
    known = against.contamination
    return [
        ship_verdict(
            [part.plan for part in parts],
            {case.id: part.suite.name for part in parts for case in part.cases},
            by_label[labels[0]],
            by_label[label],
            (labels[0], label),
            against.options,
            clusters=clusters_of(parts),
            leaked=known.known_questions if known else frozenset(),
            checked_files=known.files if known else [],
            alarms=[
                *(
                    f"gate of {gate.suite}: {gate.gate.metric}: {'; '.join(gate.reasons)}"
                    for gate in gates
                    if gate.state == "failed" and gate.suite in safety and gate.endpoint == label
                ),
                *_forgetting(against.drift, label),
            ],
        )
        for label in labels[1:]
    ]


def _forgetting(found: MeasuredDrift | None, label: str) -> list[str]:
    if found is None or found.label != label or found.drift.verdict != "forgetting":
        return []
    d = found.drift
    return [
        f"ordinary text costs {d.change:+.2f} bits per byte more "
        f"(95 % interval {d.low:+.2f} to {d.high:+.2f}, {d.n} passages)"
    ]


def _judges(found: JudgeReport | None) -> list[JudgeInfo]:
    if found is None:
        return []
    return [
        JudgeInfo(
            rubric=rubric.rubric,
            judge=found.judge,
            agreement=found.agreement[rubric.rubric],
            can_gate=rubric.can_gate,
            why=rubric.why,
        )
        for rubric in found.rubrics
    ]


def _trust(found: JudgeReport | None) -> dict[str, Trust]:
    """By rubric; a kappa that is too low is left to the gate's own bound."""
    trust = {}
    for info in _judges(found):
        low = info.agreement is not None and info.agreement < LEAST_AGREEMENT
        doubt = "" if info.can_gate or low else info.why
        trust[info.rubric] = Trust(info.agreement, doubt)
    return trust


def _contamination_info(found: Contamination | None) -> ContaminationInfo | None:
    if found is None:
        return None
    kinds = list(found.leaks.values())
    return ContaminationInfo(
        files=found.files,
        rows=found.rows,
        question=kinds.count("question"),
        passage=kinds.count("passage"),
        answer=kinds.count("answer"),
    )


def _verdict(summaries: Sequence[Summary], gates: Sequence[GateResult]) -> Verdict:
    if any(summary.errors or summary.not_asked for summary in summaries):
        return "incomplete"
    checked = [gate for gate in gates if gate.state != "not_checked"]
    if not checked:
        return "no_gates"
    return "passed" if all(gate.state == "passed" for gate in checked) else "failed"


def _endpoint(label: str, rows: Sequence[Prediction]) -> EndpointInfo:
    own = [row for row in rows if row.endpoint == label]
    settings: list[dict[str, Any]] = []
    for row in own:
        setting = {key: value for key, value in row.request.items() if key != "messages"}
        if setting not in settings:
            settings.append(setting)
    times = sorted(row.started_at for row in own)
    return EndpointInfo(
        label=label,
        base_urls=list(dict.fromkeys(row.base_url for row in own)),
        requests=settings,
        first_at=times[0] if times else None,
        last_at=times[-1] if times else None,
    )


def _case(
    case: Case, suite: str, answers: list[ScoredAnswer], known: Contamination | None
) -> CaseResult:
    return CaseResult(
        id=case.id,
        suite=suite,
        tags=case.tags,
        messages=case.turns,
        reference=case.reference,
        leaked=known.leaks.get(case.id) if known else None,
        answers=answers,
    )


def read_report(path: Path) -> EvaluationReport:
    """The report in an `evaluation_report.json`, of this version or an older one.

    InputError says when it is of a newer version, or no report.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable: {error}") from error
    version = document.get("version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > REPORT_VERSION:
        raise InputError(
            f"{path}: an evaluation report of version {version}; this palmswift reads up to "
            f"{REPORT_VERSION}",
            remedy="update palmswift, or make the report again from predictions.jsonl",
        )
    try:
        return EvaluationReport.model_validate(_modern(document))
    except ValidationError as error:
        raise InputError(f"{path}: not an evaluation report: {error}") from error


def _modern(document: Any) -> Any:
    """A version 1 document with what version 2 says in other words."""
    if not isinstance(document, dict) or document.get("version") != 1:
        return document
    for case in document.get("cases", []):
        for answer in case.get("answers", []):
            scores = answer.setdefault("scores", {})
            exact, chrf = answer.pop("exact", None), answer.pop("chrf", None)
            scores.update({"exact_match": float(exact)} if exact is not None else {})
            scores.update({"chrf": chrf} if chrf is not None else {})
            for check in answer.get("assertions", []):
                if "passed" in check:
                    check["state"] = "passed" if check.pop("passed") else "failed"
    return document
