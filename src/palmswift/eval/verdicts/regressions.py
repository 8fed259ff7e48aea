"""The cases at which one model does worse than another, the clearest first."""

from __future__ import annotations

from typing import NamedTuple

from palmswift.eval.measures.metrics import LOWER_IS_BETTER, METRICS
from palmswift.eval.reports.report import CaseResult, EvaluationReport
from palmswift.eval.verdicts.comparison import SuitePlan, extent_of, measure_of, value_of


class Regression(NamedTuple):
    """A case, and how far it fell."""

    case: CaseResult
    measure: str
    drop: float
    """Of the measure's scale, above 0: 1 is from passed every time to failed every time."""


def changes(report: EvaluationReport, base: str, tuned: str) -> list[Regression]:
    """Every case whose value changed, worst first; a gain has a negative drop.

    What is judged is compared by passes, else by the first score that both answers have.
    """
    found = []
    for case in report.cases:
        change = _change(case, base, tuned)
        if change is not None and change.drop:
            found.append(change)
    found.sort(key=lambda one: -one.drop)
    return found


def regressions(report: EvaluationReport, base: str, tuned: str) -> list[Regression]:
    """The cases that got worse, worst first; safety's before general's before the task's."""
    order = {"safety": 0, "general": 1, "task": 2}
    roles = {suite.name: order[suite.role] for suite in report.suites}
    worse = [change for change in changes(report, base, tuned) if change.drop > 0]
    worse.sort(key=lambda one: roles.get(one.case.suite or "", 2))  # stable: worst stays first
    return worse


def _change(case: CaseResult, base: str, tuned: str) -> Regression | None:
    first = [answer for answer in case.answers if answer.endpoint == base]
    second = [answer for answer in case.answers if answer.endpoint == tuned]
    measure = measure_of([*first, *second], SuitePlan(name=case.suite or ""))
    if measure not in METRICS and not measure.startswith("judge."):
        return None
    before = {answer.repeat: value_of(answer, measure) for answer in first}
    pairs = [
        (old, new)
        for answer in second
        if (new := value_of(answer, measure)) is not None
        and (old := before.get(answer.repeat)) is not None
    ]
    if not pairs:
        return None
    drop = sum(old - new for old, new in pairs) / len(pairs)
    if measure in LOWER_IS_BETTER:
        drop = -drop
    return Regression(case, measure, drop / extent_of(measure))
