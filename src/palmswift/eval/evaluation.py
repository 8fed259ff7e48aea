"""Runs a suite against endpoints and reports on every endpoint that was ever tested in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from palmswift.errors import ChildError, InputError
from palmswift.eval.asking.asking import Asker, find
from palmswift.eval.asking.conversation import Case
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.engine import Outcome, Progress, Question, Sampling
from palmswift.eval.asking.journal import Prediction, RequestKey, read_journal
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.reports.report import (
    HTML_NAME,
    NOTHING,
    PREDICTIONS_NAME,
    Against,
    EvaluationReport,
    MeasuredDrift,
    build_report,
)
from palmswift.eval.reports.report_files import write_report
from palmswift.eval.suites.dialogue import Answers, depths
from palmswift.eval.suites.several import parts_of
from palmswift.eval.suites.suite import Suite

DRIFT_NAME = "drift.json"


class EvalRun(BaseModel):
    """How a suite is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(default=8, ge=1)
    """Requests in flight."""
    max_samples: int | None = Field(default=None, ge=1)
    """Ask only so many cases, of every tag some; null: all."""
    seed: int = 0
    """Decides which cases `max_samples` takes."""
    fresh: bool = False
    """Ask everything again; older answers of the same labels are set aside."""
    fingerprint: bool = True
    """Probe every model, so that answers of other weights are not taken for its own."""
    sampling: Sampling = Field(default_factory=Sampling)
    policy: RetryPolicy = Field(default_factory=RetryPolicy)


def evaluate(
    suites: Suite | Sequence[Suite],
    endpoints: Sequence[Endpoint],
    out: Path,
    settings: EvalRun,
    *,
    against: Against = NOTHING,
    report: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda text: None,
) -> EvaluationReport:
    """Ask `endpoints` the suites' cases, one endpoint after the other, and write the report.

    Answers that `out`/predictions.jsonl already has of the same model for the same label, case,
    repeat and request are not asked again; errors are. The report covers every label in that file,
    so a later call with another endpoint adds to it. Without endpoints it scores what is there.

    ChildError: an endpoint does not answer, or every request of this call to one failed (the
    report is written in the second case), or its model changed meanwhile. InputError: `out` is in
    use.
    """
    given = [suites] if isinstance(suites, Suite) else suites
    parts = parts_of(given, settings.max_samples, settings.seed)
    cases = [case for part in parts for case in part.cases]
    path = out / PREDICTIONS_NAME
    found = [
        find(endpoint, settings.policy, fingerprint=settings.fingerprint) for endpoint in endpoints
    ]
    outcomes: dict[str, Outcome] = {}
    wanted: set[RequestKey] = set()
    if endpoints:
        with Asker(
            path,
            settings.sampling,
            settings.policy,
            settings.concurrency,
            report=report,
            note=note,
        ) as asker:
            for one in found:
                target = asker.admit(one, fresh=settings.fresh)
                asked: list[Outcome] = []
                # Further questions of a conversation need the answers to those before them.
                for depth in range(max(depths(cases).values()) + 1):
                    rows = [r for r in read_journal(path) if r.key in wanted] if depth else []
                    questions = questions_at(depth, cases, rows, one.endpoint.label)
                    asked.append(asker.ask(target, questions))
                    wanted |= asker.keys(target, questions)
                outcomes[one.endpoint.label] = _together(asked)
                _tell(one.endpoint, outcomes[one.endpoint.label], path, note)
    # A label that was tested just now is judged by these requests alone, not by other settings'.
    result = build_report(
        parts,
        [row for row in read_journal(path) if row.endpoint not in outcomes or row.key in wanted],
        [endpoint.label for endpoint in endpoints],
        with_findings(against, out),
    )
    write_report(result, out)
    _refuse_total_failure(outcomes, out)
    return result


def with_findings(against: Against, out: Path) -> Against:
    """With what eval/judge.py and eval/perplexity.py have left in `out`, where they were run."""
    from palmswift.eval.judging.judge_report import JUDGE_NAME, read_judge_report

    if (out / JUDGE_NAME).is_file():
        against = against._replace(judges=read_judge_report(out / JUDGE_NAME))
    if (out / DRIFT_NAME).is_file():
        against = against._replace(drift=_drift(out / DRIFT_NAME))
    return against


def _drift(path: Path) -> MeasuredDrift | None:
    """The change over all passages in a file of `eval/perplexity.py --out`; None: of one model."""
    from palmswift.eval.measures.drift import Drift

    try:
        document = json.loads(path.read_bytes())
        if not document.get("drift"):
            return None
        return MeasuredDrift(
            document["models"][1]["label"], Drift.model_validate(document["drift"][0])
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the numbers of eval/perplexity.py: {error}") from error


def questions_at(
    depth: int, cases: Sequence[Case], rows: Iterable[Prediction], label: str
) -> list[Question]:
    """The questions that come after `depth` of the model's own answers; those whose answer before
    is lacking are left out."""
    answers = Answers(cases, (row for row in rows if row.endpoint == label))
    depth_of = depths(cases)
    return [
        Question(case.id, repeat, messages, case.request)
        for case in cases
        if depth_of[case.id] == depth
        for repeat in range(case.repeats)
        if (messages := answers.messages(label, case, repeat)) is not None
    ]


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of several calls as one."""
    return Outcome(
        reused=sum(outcome.reused for outcome in outcomes),
        asked=sum(outcome.asked for outcome in outcomes),
        errors=sum(outcome.errors for outcome in outcomes),
        not_asked=sum(outcome.not_asked for outcome in outcomes),
        first_error=next((o.first_error for o in outcomes if o.first_error), None),
    )


def _tell(endpoint: Endpoint, outcome: Outcome, path: Path, note: Callable[[str], None]) -> None:
    if outcome.reused:
        asked = "nothing was asked" if not outcome.asked else f"{outcome.asked} were asked"
        note(f"{endpoint.label}: {outcome.reused} answers were in {path} already, {asked}")
    if outcome.not_asked:
        note(f"{endpoint.label}: the server went away; {outcome.not_asked} cases are left to ask")


def _refuse_total_failure(outcomes: dict[str, Outcome], out: Path) -> None:
    """ChildError when an endpoint was asked and gave nothing, now or before."""
    for label, outcome in outcomes.items():
        if outcome.asked and outcome.asked == outcome.errors and not outcome.reused:
            raise ChildError(
                f"endpoint {label}: all {outcome.asked} requests failed: {outcome.first_error}",
                remedy=f"the report with every error is {out / HTML_NAME}",
            )
