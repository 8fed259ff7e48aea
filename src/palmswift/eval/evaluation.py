"""Runs a suite against endpoints and reports on every endpoint that was ever tested in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from palmswift.errors import ChildError
from palmswift.eval.endpoint import Endpoint
from palmswift.eval.engine import (
    Outcome,
    Progress,
    Question,
    Sampling,
    ask_all,
    find_model,
    request_body,
    request_key,
)
from palmswift.eval.journal import Journal, read_journal, set_aside
from palmswift.eval.loop import run_interruptible
from palmswift.eval.report import (
    HTML_NAME,
    NOTHING,
    PREDICTIONS_NAME,
    Against,
    EvaluationReport,
    build_report,
)
from palmswift.eval.report_files import write_report
from palmswift.eval.retry import RetryPolicy
from palmswift.eval.several import parts_of
from palmswift.eval.suite import Suite


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

    Answers that `out`/predictions.jsonl already has for the same label, case, repeat and request
    are not asked again; errors are. The report covers every label in that file, so a later call
    with another endpoint adds to it. Without endpoints it scores what is there.

    ChildError: an endpoint does not answer, or every request of this call to one failed (the
    report is written in the second case). InputError: `out` is in use.
    """
    given = [suites] if isinstance(suites, Suite) else suites
    parts = parts_of(given, settings.max_samples, settings.seed)
    path = out / PREDICTIONS_NAME
    models = [run_interruptible(find_model(endpoint, settings.policy)) for endpoint in endpoints]
    questions = [
        Question(case.id, repeat, case.conversation())
        for part in parts
        for case in part.cases
        for repeat in range(case.repeats)
    ]
    outcomes: dict[str, Outcome] = {}
    if settings.fresh and path.exists():
        kept = set_aside(path, [endpoint.label for endpoint in endpoints])
        if kept is not None:
            note(f"the answers so far are kept in {kept}")
    if endpoints:
        with Journal(path) as journal:
            answered = {row.key for row in read_journal(path) if row.error is None}
            for endpoint, model in zip(endpoints, models, strict=True):
                outcomes[endpoint.label] = run_interruptible(
                    ask_all(
                        endpoint,
                        model,
                        questions,
                        journal,
                        answered,
                        settings.sampling,
                        settings.policy,
                        settings.concurrency,
                        report,
                    )
                )
                _tell(endpoint, outcomes[endpoint.label], path, note)
    wanted = {
        request_key(endpoint, question, request_body(endpoint, model, question, settings.sampling))
        for endpoint, model in zip(endpoints, models, strict=True)
        for question in questions
    }
    # A label that was tested just now is judged by these requests alone, not by other settings'.
    result = build_report(
        parts,
        [row for row in read_journal(path) if row.endpoint not in outcomes or row.key in wanted],
        [endpoint.label for endpoint in endpoints],
        against,
    )
    write_report(result, out)
    _refuse_total_failure(outcomes, out)
    return result


def _tell(endpoint: Endpoint, outcome: Outcome, path: Path, note: Callable[[str], None]) -> None:
    if outcome.reused:
        asked = "nothing was asked" if not outcome.asked else f"{outcome.asked} were asked"
        note(
            f"{endpoint.label}: {outcome.reused} answers were in {path} already, {asked}. "
            "If the model behind the endpoint has changed since, use another --out or --fresh."
        )
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
