"""Holds journalled answers against a suite; sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from palmswift.eval.asking.conversation import Case
from palmswift.eval.asking.journal import Prediction
from palmswift.eval.asking.think import split_think
from palmswift.eval.measures.metrics import LOWER_IS_BETTER, TextMetric, answer_scores
from palmswift.eval.suites.assertions import AssertionResult
from palmswift.eval.suites.checking import CallFunction, Subject, check, no_functions
from palmswift.eval.suites.dialogue import Answers
from palmswift.eval.suites.python_check import Functions

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
    *,
    folder: Path | None = None,
) -> list[ScoredAnswer]:
    """One scored answer for each of `labels`, each case and each repeat, in that order.

    Which rows count is told in `dialogue.Answers`. `folder` is the suite's, which functions of its
    own are relative to.
    """
    answers = Answers(cases, predictions)
    with Functions(folder) as call:
        return [
            score_one(
                label,
                case,
                repeat,
                answers.row(label, case, repeat),
                metrics,
                call=call,
                reason=None
                if answers.messages(label, case, repeat) is not None
                else "the question before it has no answer",
            )
            for label in labels
            for case in cases
            for repeat in range(case.repeats)
        ]


def score_one(
    label: str,
    case: Case,
    repeat: int,
    row: Prediction | None,
    metrics: Sequence[TextMetric],
    *,
    call: CallFunction = no_functions,
    reason: str | None = None,
) -> ScoredAnswer:
    """One answer held against its case; `reason` is why it was not asked."""
    place: dict[str, Any] = {
        "endpoint": label,
        "case": case.id,
        "repeat": repeat,
        "tags": case.tags,
    }
    if row is None:
        return ScoredAnswer(**place, state="not_asked", reason=reason or "not asked yet")
    if row.error is not None:
        return ScoredAnswer(**place, state="error", reason=row.error.message, attempts=row.attempts)
    subject, replied = subject_of(case, row)
    checks = [check(assertion, subject, call) for assertion in case.assertions]
    # Thinking that never ended is graded as an empty answer: wrong, whatever the references.
    # In one order whatever the process: the report of the same answers is the same to the byte.
    wanted = dict.fromkeys(("exact_match", *metrics))
    scores = answer_scores(subject.answer, subject.references, wanted)
    if not replied:
        scores = {name: 0.0 for name in scores if name not in LOWER_IS_BETTER}
    passed, share = _judged(checks) if replied else (False, 0.0)
    undecided = [result for result in checks if result.state == "error"]
    why = f"{undecided[0].kind}: {undecided[0].detail}" if undecided and passed is None else None
    return ScoredAnswer(
        **place,
        state="answered" if replied else "no_answer",
        answer=subject.answer if replied else None,
        reasoning=subject.reasoning,
        reason=why if replied else "thinking truncated",
        scores=scores,
        assertions=checks,
        passed=passed if checks else None,
        score=share if checks else None,
        finish_reason=row.finish_reason,
        seconds=row.seconds,
        attempts=row.attempts,
    )


def subject_of(case: Case, row: Prediction) -> tuple[Subject, bool]:
    """What an answer is judged by, and whether there is one (its thinking ended)."""
    answer, reasoning = split_think(row.content, row.reasoning)
    tokens = (row.usage or {}).get("completion_tokens")
    return (
        Subject(
            answer=answer or "",
            references=case.all_references,
            reasoning=reasoning,
            finish_reason=row.finish_reason,
            seconds=row.seconds,
            tool_calls=row.tool_calls or (),
            tokens=tokens if isinstance(tokens, int) else None,
            case=case.id,
            tags=case.tags,
            messages=row.request.get("messages", []),
        ),
        answer is not None,
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
