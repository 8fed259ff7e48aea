"""The evaluation report: what was asked of whom, how it went, and whether the gates hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.errors import InputError
from palmswift.eval.conversation import Case, Message
from palmswift.eval.dialogue import Answers
from palmswift.eval.gate import GateResult, hold
from palmswift.eval.journal import Prediction
from palmswift.eval.scoring import ScoredAnswer, score
from palmswift.eval.suite import Suite
from palmswift.eval.summary import Summary, summarise
from palmswift.files import write_json, write_text

Verdict = Literal["passed", "failed", "incomplete", "no_gates"]

JSON_NAME = "evaluation_report.json"
CSV_NAME = "evaluation_report.csv"
HTML_NAME = "evaluation_report.html"
PREDICTIONS_NAME = "predictions.jsonl"

_COLUMNS = (
    *("endpoint", "case", "repeat", "tags", "question", "reference", "answer", "state", "reason"),
    *("exact", "chrf", "passed", "failed_assertions", "finish_reason", "seconds", "attempts"),
)


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
    tags: list[str]
    messages: list[Message]
    """What was sent."""
    reference: str | None
    answers: list[ScoredAnswer]


class EvaluationReport(BaseModel):
    """`evaluation_report.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    suite: str
    description: str
    created_at: str
    cases_in_suite: int
    """Before `--max-samples`; fewer cases below make this a quick look, not a verdict."""
    verdict: Verdict
    endpoints: list[EndpointInfo]
    """`base` first, the rest in order of appearance."""
    summaries: list[Summary]
    gates: list[GateResult]
    cases: list[CaseResult]

    @property
    def labels(self) -> list[str]:
        """The endpoints' labels, `base` first."""
        return [endpoint.label for endpoint in self.endpoints]

    @property
    def unanswered(self) -> int:
        """Requests that ended in an error or were not made."""
        return sum(s.errors + s.not_asked for s in self.summaries if s.tag is None)

    def summary(self, endpoint: str, tag: str | None = None) -> Summary:
        """The summary of an endpoint's answers to a tag's cases, or to all; KeyError if none."""
        for summary in self.summaries:
            if summary.endpoint == endpoint and summary.tag == tag:
                return summary
        raise KeyError((endpoint, tag))


def build_report(
    suite: Suite,
    predictions: Sequence[Prediction],
    labels: Sequence[str] = (),
    *,
    cases_in_suite: int | None = None,
) -> EvaluationReport:
    """The report on `suite` from journalled predictions.

    `labels` are endpoints to report on even when they have no row yet; every label that the
    journal has an answer from is reported on too.
    """
    rows = Answers(suite.cases, predictions).rows
    found = dict.fromkeys([*(row.endpoint for row in rows), *labels])
    ordered = sorted(found, key=lambda label: label != "base")
    scored = score(suite.cases, suite.metrics, rows, ordered, folder=suite.folder)
    summaries = summarise(suite.cases, suite.metrics, scored, ordered)
    gates = hold(suite.gates, summaries)
    by_case: dict[str, list[ScoredAnswer]] = {}
    for answer in scored:
        by_case.setdefault(answer.case, []).append(answer)
    return EvaluationReport(
        suite=suite.name,
        description=suite.description,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cases_in_suite=cases_in_suite or len(suite.cases),
        verdict=_verdict(summaries, gates),
        endpoints=[_endpoint(label, rows) for label in ordered],
        summaries=summaries,
        gates=gates,
        cases=[_case(case, by_case.get(case.id, [])) for case in suite.cases],
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


def _case(case: Case, answers: list[ScoredAnswer]) -> CaseResult:
    return CaseResult(
        id=case.id,
        tags=case.tags,
        messages=case.turns,
        reference=case.reference,
        answers=answers,
    )


def write_report(report: EvaluationReport, folder: Path) -> None:
    """Write the report as JSON, CSV and HTML into `folder`."""
    from palmswift.eval.page import render

    write_json(folder / JSON_NAME, report.model_dump(mode="json"))
    write_text(folder / CSV_NAME, csv_text(report))
    write_text(folder / HTML_NAME, render(report))


def read_report(path: Path) -> EvaluationReport:
    """The report in an `evaluation_report.json`."""
    try:
        return EvaluationReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: not readable: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: not an evaluation report of this version: {error}") from error


def csv_text(report: EvaluationReport) -> str:
    """The report with one line for each endpoint, case and repeat.

    It begins with a byte order mark, without which Excel reads Chinese wrongly. A text that a
    spreadsheet would run as a formula gets an apostrophe before it.
    """
    buffer = io.StringIO(newline="")
    buffer.write("\ufeff")
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for row in _csv_rows(report):
        writer.writerow([_cell(value) for value in row])
    return buffer.getvalue()


def _csv_rows(report: EvaluationReport) -> Iterator[list[Any]]:
    for label in report.labels:
        for case in report.cases:
            for answer in case.answers:
                if answer.endpoint != label:
                    continue
                failed = [f"{a.kind}: {a.expected}" for a in answer.assertions if not a.passed]
                yield [
                    label,
                    case.id,
                    answer.repeat,
                    " ".join(case.tags),
                    case.messages[-1].content,
                    case.reference,
                    answer.answer,
                    answer.state,
                    answer.reason,
                    answer.exact,
                    answer.chrf,
                    answer.passed,
                    "; ".join(failed),
                    answer.finish_reason,
                    answer.seconds,
                    answer.attempts,
                ]


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
