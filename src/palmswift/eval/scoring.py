"""Holds journalled answers against a suite; sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from palmswift.eval.assertions import AssertionResult, check
from palmswift.eval.conversation import Case
from palmswift.eval.journal import Prediction
from palmswift.eval.metrics import TextMetric, is_exact, sentence_chrf
from palmswift.eval.think import split_think

State = Literal["answered", "no_answer", "error", "not_asked"]
"""`no_answer`: the server replied, but only with thinking that never ended. `error`: it did not
reply. `not_asked`: the run stopped before."""


class ScoredAnswer(BaseModel):
    """What one endpoint made of one case, once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    case: str
    repeat: int
    state: State
    answer: str | None = None
    reasoning: str | None = None
    reason: str | None = None
    """Why there is no answer, or why it could not be judged."""
    tags: list[str] = []
    scores: dict[str, float] = {}
    """This answer's own metrics by name, in the scale that `metrics.METRICS` says; a metric that
    could not be computed is absent, never 0."""
    assertions: list[AssertionResult] = []
    passed: bool | None = None
    """Whether all assertions hold; null when there are none, no reply came, or none failed but
    one could not be evaluated (`undecided`)."""
    score: float | None = None
    """The weight of the assertions that hold, of all that could be evaluated: 0 to 1; null when
    there are none or no reply came."""
    finish_reason: str | None = None
    seconds: float | None = None
    attempts: int = 0

    @property
    def undecided(self) -> bool:
        """Whether a reply is neither passed nor failed since an assertion ended in an error."""
        return self.passed is None and any(a.state == "error" for a in self.assertions)

    @property
    def exact(self) -> bool | None:
        """Same text as a reference; None without reference or reply."""
        value = self.scores.get("exact_match")
        return None if value is None else value == 1.0

    @property
    def chrf(self) -> float | None:
        """chrF2 against the reference, 0 to 100."""
        return self.scores.get("chrf")


def score(
    cases: Sequence[Case],
    metrics: Sequence[TextMetric],
    predictions: Iterable[Prediction],
    labels: Sequence[str],
) -> list[ScoredAnswer]:
    """One scored answer for each of `labels`, each case and each repeat, in that order.

    A row counts when it asked what the case asks today; of several, the last that has a reply,
    else the last.
    """
    wanted = {case.id: case.conversation() for case in cases}
    latest: dict[tuple[str, str, int], Prediction] = {}
    for row in predictions:
        if row.case not in wanted or row.request.get("messages") != wanted[row.case]:
            continue
        place = (row.endpoint, row.case, row.repeat)
        before = latest.get(place)
        if before is None or row.error is None or before.error is not None:
            latest[place] = row
    return [
        score_one(label, case, repeat, latest.get((label, case.id, repeat)), metrics)
        for label in labels
        for case in cases
        for repeat in range(case.repeats)
    ]


def score_one(
    label: str, case: Case, repeat: int, row: Prediction | None, metrics: Sequence[TextMetric]
) -> ScoredAnswer:
    """One answer held against its case."""
    place: dict[str, Any] = {
        "endpoint": label,
        "case": case.id,
        "repeat": repeat,
        "tags": case.tags,
    }
    if row is None:
        return ScoredAnswer(**place, state="not_asked", reason="not asked yet")
    if row.error is not None:
        return ScoredAnswer(**place, state="error", reason=row.error.message, attempts=row.attempts)
    answer, reasoning = split_think(row.content, row.reasoning)
    text, replied = answer or "", answer is not None
    checks = [check(assertion, text, case.reference) for assertion in case.assertions]
    scores: dict[str, float] = {}
    if case.reference is not None:
        scores["exact_match"] = float(replied and is_exact(text, case.reference))
        if "chrf" in metrics:
            scores["chrf"] = sentence_chrf(text, case.reference) if replied else 0.0
    passed, share = _judged(checks) if replied else (False, 0.0)
    return ScoredAnswer(
        **place,
        state="answered" if replied else "no_answer",
        answer=answer,
        reasoning=reasoning,
        reason=None if replied else "thinking truncated",
        scores=scores,
        assertions=checks,
        passed=passed if checks else None,
        score=share if checks else None,
        finish_reason=row.finish_reason,
        seconds=row.seconds,
        attempts=row.attempts,
    )


def _judged(checks: Sequence[AssertionResult]) -> tuple[bool | None, float | None]:
    """Whether all hold (None: none failed, one ended in an error), and their weighted share."""
    states = [result.state for result in checks]
    decided = [result for result in checks if result.state != "error"]
    total = sum(result.weight for result in decided)
    held = sum(result.weight for result in decided if result.passed)
    share = held / total if total else None
    if "failed" in states:
        return False, share
    return (None if "error" in states else True), share
