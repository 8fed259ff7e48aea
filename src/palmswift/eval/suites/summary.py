"""Sums scored answers up by endpoint and tag, with the denominator of every number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from palmswift.eval.asking.conversation import Case
from palmswift.eval.measures.metrics import (
    CORPUS,
    DIVERSITY,
    METRICS,
    NAMES,
    MetricName,
    TextMetric,
    latency,
)
from palmswift.eval.suites.scoring import ScoredAnswer

_OF_THE_CORPUS = ("exact_match", "chrf", "bleu")
"""Scores that are not the mean of the answers' own."""


class Measurement(BaseModel):
    """One number and what it was made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    """A share from 0 to 1, a score from 0 to 100, or seconds; null: nothing to measure."""
    n: int
    """How many answers (requests, for error_rate) it is of."""
    count: int | None = None
    """Of a share: how many of `n`."""
    signature: str | None = None
    """Of BLEU and chrF: sacrebleu's settings."""


class Summary(BaseModel):
    """How one endpoint did on the cases of one tag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    tag: str | None
    """Null: all cases."""
    suite: str | None = None
    """Null: of all suites."""
    cases: int
    requests: int
    """Cases times repeats; answered + no_answer + errors + not_asked."""
    answered: int
    no_answer: int
    errors: int
    not_asked: int
    undecided: int = 0
    """Of the replies: those with an assertion that could not be evaluated, and none that failed;
    they are not in the pass rate."""
    metrics: dict[MetricName, Measurement]


def summarise(
    cases: Sequence[Case],
    metrics: Sequence[TextMetric],
    scored: Sequence[ScoredAnswer],
    labels: Sequence[str],
) -> list[Summary]:
    """A summary of all cases and of each tag's, for each of `labels`."""
    by_id = {case.id: case for case in cases}
    tags: list[str | None] = [None, *dict.fromkeys(tag for case in cases for tag in case.tags)]
    return [
        _summary(
            by_id,
            metrics,
            label,
            tag,
            [
                answer
                for answer in scored
                if answer.endpoint == label and (tag is None or tag in by_id[answer.case].tags)
            ],
        )
        for label in labels
        for tag in tags
    ]


def _summary(
    cases: Mapping[str, Case],
    metrics: Sequence[TextMetric],
    label: str,
    tag: str | None,
    group: Sequence[ScoredAnswer],
) -> Summary:
    states = [answer.state for answer in group]
    return Summary(
        endpoint=label,
        tag=tag,
        cases=len({answer.case for answer in group}),
        requests=len(group),
        answered=states.count("answered"),
        no_answer=states.count("no_answer"),
        errors=states.count("error"),
        not_asked=states.count("not_asked"),
        undecided=sum(answer.undecided for answer in group),
        metrics=dict(_measurements(cases, metrics, group)),
    )


def _measurements(
    cases: Mapping[str, Case], metrics: Sequence[TextMetric], group: Sequence[ScoredAnswer]
) -> Iterator[tuple[MetricName, Measurement]]:
    """Quality is measured on replies, of which one that never stopped thinking is a wrong one;
    errors have a rate of their own and are in no other denominator."""
    judged = [answer for answer in group if answer.passed is not None]
    if judged:
        total = sum(cases[answer.case].weight for answer in judged)
        passed = [answer for answer in judged if answer.passed]
        value = sum(cases[answer.case].weight for answer in passed) / total
        yield "pass_rate", Measurement(value=value, n=len(judged), count=len(passed))
    compared = [
        answer
        for answer in group
        if answer.state in ("answered", "no_answer") and cases[answer.case].all_references
    ]
    yield from _means(metrics, group)
    answers = [answer.answer or "" for answer in compared]
    references = [cases[answer.case].all_references for answer in compared]
    for name, scorer in CORPUS.items():
        if compared and name in metrics:
            result = scorer(answers, references)
            yield (
                name,
                Measurement(value=result.value, n=len(compared), signature=result.signature),
            )
    if "diversity" in metrics:
        texts = [answer.answer for answer in group if answer.answer]
        for name, measure in DIVERSITY.items():
            yield name, Measurement(value=measure(texts), n=len(texts))
    asked = [answer for answer in group if answer.state != "not_asked"]
    replies = [answer for answer in asked if answer.state != "error"]
    answered = sum(answer.state == "answered" for answer in replies)
    yield "answer_rate", _share(answered, len(replies))
    yield "error_rate", _share(len(asked) - len(replies), len(asked))
    seconds = [answer.seconds for answer in replies if answer.seconds is not None]
    times = latency(seconds) if seconds else None
    n = len(seconds)
    yield "latency_mean", Measurement(value=times.mean if times else None, n=n)
    yield "latency_p50", Measurement(value=times.p50 if times else None, n=n)
    yield "latency_p95", Measurement(value=times.p95 if times else None, n=n)


def _means(
    metrics: Sequence[TextMetric], group: Sequence[ScoredAnswer]
) -> Iterator[tuple[MetricName, Measurement]]:
    """The mean of each metric that answers have by themselves."""
    asked_for = {name for metric in metrics for name in NAMES[metric]}
    found = dict.fromkeys(name for answer in group for name in answer.scores)
    for name in found:
        if name in CORPUS or (name in METRICS and name not in asked_for):
            continue
        values = [answer.scores[name] for answer in group if name in answer.scores]
        if name == "exact_match":
            yield name, _share(sum(value == 1.0 for value in values), len(values))
        else:
            yield name, Measurement(value=math.fsum(values) / len(values), n=len(values))


def _share(count: int, n: int) -> Measurement:
    return Measurement(value=count / n if n else None, n=n, count=count)
