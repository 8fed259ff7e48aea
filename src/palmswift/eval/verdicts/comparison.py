"""Two models' values of one measure on the same cases: paired, tested, with interval and power."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from palmswift.eval.measures.metrics import LOWER_IS_BETTER, metric_of
from palmswift.eval.suites.scoring import ScoredAnswer

Role = Literal["task", "general", "safety"]
"""What a suite is for: what was trained, what should not be forgotten, what must not get worse."""

Word = Literal["helped", "no_difference", "hurt", "unsafe", "quick", "nothing"]
"""`quick`: too few of the suite's cases were asked for a verdict. `nothing`: no case has an answer
from both models."""

ALPHA = 0.05
POWER = 0.8
EFFECT = 0.05
"""The difference, as a share of the scale, that a test is expected to be able to see."""
SMALL_EFFECT = 0.03
_MARGIN = 0.05
_RANGES = {"share": 1.0, "hundred": 100.0, "rating": 4.0}
"""How far apart two values of a scale can be; other scales have no end."""
_LIKED = ("bertscore", "rouge_l", "chrf", "score", "nats_per_token", "bits_per_byte", "exact_match")
"""What a suite without assertions is compared by, the first of these that its answers have."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SuitePlan(_Model):
    """How the verdict treats a suite."""

    name: str
    role: Role = "task"
    margin: float | None = None
    """How much worse still counts as kept, in the measure's unit; null: 5 % of its scale."""
    primary: str | None = None
    """The measure the verdict rests on; null: passes where cases are judged, else a score."""
    cases: int | None = None
    """How many cases the suite has; null: those that were asked."""


class Comparison(_Model):
    """One measure of two models on the same cases."""

    suite: str
    tag: str | None = None
    """Null: the whole suite. A tag's comparison informs; no verdict rests on it."""
    role: Role
    measure: str
    lower_is_better: bool
    cases: int
    """Cases that both models have a graded answer to, each conversation counted once; what n is
    everywhere."""
    answers: int
    """Pairs of answers: cases times repeats."""
    left_out: int
    """Pairs without a reply, or with one that could not be judged, at either model."""
    base: float | None
    tuned: float | None
    difference: float | None
    """`tuned` less `base`."""
    low: float | None
    high: float | None
    """The 95 % interval of the difference."""
    p: float | None
    adjusted_p: float | None = None
    """After Holm's correction for several suites, which a safety suite's is not subject to; null at
    tags."""
    gained: int
    """Cases at which the tuned model does better."""
    lost: int
    effect: float | None
    """Standardised: the odds of gained against lost for passes, else the mean difference over its
    standard deviation."""
    visible: float | None
    """The smallest true difference that this many cases show with 80 % power."""
    needed: int | None
    """Cases that a true difference of 3 % of the scale would need."""
    needed_for: float
    """Those 3 %, in the measure's unit."""
    margin: float
    not_worse: bool | None = None
    """Whether it is shown not to be worse by more than `margin`."""
    word: Word | None = None
    """Null at tags."""


NO_CLUSTERS: Mapping[str, str] = {}


class Pairing(NamedTuple):
    """Both models' values of one measure, case by case."""

    base: list[float]
    """One a case: the mean over its repeats."""
    tuned: list[float]
    answers: int
    left_out: int
    single: bool
    """Whether every case has one pair of answers."""


class Options(NamedTuple):
    """How strictly two models are compared."""

    alpha: float = ALPHA
    sequential: bool = False
    effect: float = EFFECT
    """What a quick look must be able to see, as a share of the scale, to give a verdict."""


DEFAULTS = Options()


def extent_of(measure: str) -> float:
    """How far apart two values can be, 1 where there is no end."""
    return _RANGES.get(metric_of(measure).scale, 1.0)


def value_of(answer: ScoredAnswer, measure: str) -> float | None:
    """An answer's value of a measure; None where it has none."""
    if measure == "pass_rate":
        return None if answer.passed is None else float(answer.passed)
    if measure == "score":
        return answer.score
    return answer.scores.get(measure)


def measure_of(answers: Iterable[ScoredAnswer], plan: SuitePlan) -> str:
    """The measure that a suite's verdict rests on."""
    if plan.primary is not None:
        return plan.primary
    names: set[str] = set()
    for answer in answers:
        if answer.passed is not None:
            return "pass_rate"
        names.update(answer.scores)
        if answer.score is not None:
            names.add("score")
    # A judge comes last: it may agree with nobody. `primary` can name it.
    judged = sorted(name for name in names if name.startswith("judge."))
    return next((name for name in (*_LIKED, *judged) if name in names), "pass_rate")


def pair(
    base: Iterable[ScoredAnswer],
    tuned: Iterable[ScoredAnswer],
    measure: str,
    clusters: Mapping[str, str] = NO_CLUSTERS,
) -> dict[str, Pairing]:
    """Each case's pairing, in the order of the second model's answers; by case id.

    A pair is the answers of both models to the same case and repeat. `clusters` gives the case
    that another counts as: the turns of one conversation are no independent cases.
    """
    first = {(a.case, a.repeat): a for a in base}
    found: dict[str, list[tuple[float, float]]] = {}
    left_out: dict[str, int] = {}
    for answer in tuned:
        other = first.get((answer.case, answer.repeat))
        before = value_of(other, measure) if other is not None else None
        after = value_of(answer, measure)
        unit = clusters.get(answer.case, answer.case)
        if before is None or after is None:
            # A case that the measure is not for lacks nothing.
            if other is None or _is_lacking(other) or _is_lacking(answer):
                left_out[unit] = left_out.get(unit, 0) + 1
        else:
            found.setdefault(unit, []).append((before, after))
    pairs = {}
    for case in dict.fromkeys([*found, *left_out]):
        values = found.get(case, [])
        pairs[case] = Pairing(
            base=[math.fsum(b for b, _ in values) / len(values)] if values else [],
            tuned=[math.fsum(t for _, t in values) / len(values)] if values else [],
            answers=len(values),
            left_out=left_out.get(case, 0),
            single=len(values) <= 1,
        )
    return pairs


def _is_lacking(answer: ScoredAnswer) -> bool:
    return answer.state in ("error", "not_asked") or answer.undecided


def joined(pairs: Iterable[Pairing]) -> Pairing:
    parts = list(pairs)
    return Pairing(
        base=[value for part in parts for value in part.base],
        tuned=[value for part in parts for value in part.tuned],
        answers=sum(part.answers for part in parts),
        left_out=sum(part.left_out for part in parts),
        single=all(part.single for part in parts),
    )


class _Found(NamedTuple):
    """What the statistics say of differences that are turned so that more is better."""

    low: float
    high: float
    p: float
    gained: int
    lost: int
    effect: float | None
    visible: float | None
    needed: int | None


def compare_measure(
    suite: SuitePlan,
    measure: str,
    pairing: Pairing,
    options: Options = DEFAULTS,
    *,
    tag: str | None = None,
) -> Comparison:
    """The comparison of one measure, without a word on it yet."""
    extent = extent_of(measure)
    lower = measure in LOWER_IS_BETTER
    place = {
        "suite": suite.name,
        "tag": tag,
        "role": suite.role,
        "measure": measure,
        "lower_is_better": lower,
        "cases": len(pairing.base),
        "answers": pairing.answers,
        "left_out": pairing.left_out,
        "needed_for": SMALL_EFFECT * extent,
        "margin": _MARGIN * extent if suite.margin is None else suite.margin,
    }
    if not pairing.base:
        nothing = dict.fromkeys(("base", "tuned", "difference", *_Found._fields))
        return Comparison.model_validate({**place, **nothing, "gained": 0, "lost": 0})
    found = _tested(measure, pairing, options)
    count = len(pairing.base)
    base, tuned = math.fsum(pairing.base) / count, math.fsum(pairing.tuned) / count
    ends = {"low": -found.high, "high": -found.low} if lower else {}
    numbers = {"base": base, "tuned": tuned, "difference": tuned - base}
    return Comparison.model_validate({**place, **numbers, **found._asdict(), **ends})


def _tested(measure: str, pairing: Pairing, options: Options) -> _Found:
    """Test, interval and power for at least one pair."""
    import numpy as np

    from palmswift.eval.verdicts import intervals, power, sequential, significance

    base, tuned = np.array(pairing.base), np.array(pairing.tuned)
    better = (base - tuned) if measure in LOWER_IS_BETTER else (tuned - base)
    passes = pairing.single and bool(np.isin(np.concatenate((base, tuned)), (0.0, 1.0)).all())
    extent, bounded = extent_of(measure), metric_of(measure).scale in _RANGES
    paired = significance.Paired(better, passes and extent == 1.0)
    largest = extent if bounded else float(np.abs(better).max())
    low, high = intervals.paired_interval(paired, 1 - options.alpha, largest=largest)
    if options.sequential and bounded:
        # Its value now, not the most it ever was: the cases stand here in the suite's order, which
        # is not that in which they were asked.
        p = min(1.0, 1 / sequential.evidence(better, options.alpha, largest=extent).value)
    else:
        p = significance.paired_p(paired)
    small, n, alpha = SMALL_EFFECT * extent, paired.n, options.alpha
    effect: float | None
    if paired.binary:
        differing = power.expected_differing(paired.gained, paired.lost, n)
        visible = power.mcnemar_visible(n, differing, POWER, alpha)
        needed = power.mcnemar_cases(small, differing, POWER, alpha)
        effect = (paired.gained + 0.5) / (paired.lost + 0.5)
    else:
        spread = power.spread_of(better)
        visible = power.mean_visible(n, spread, POWER, alpha)
        needed = power.mean_cases(small, spread, POWER, alpha)
        effect = float(better.mean()) / spread if spread else None
    return _Found(low, high, p, paired.gained, paired.lost, effect, visible, needed)


def turned(comparison: Comparison) -> tuple[float, float, float]:
    """Difference and interval, turned so that more is better."""
    assert comparison.difference is not None
    assert comparison.low is not None and comparison.high is not None
    if comparison.lower_is_better:
        return -comparison.difference, -comparison.high, -comparison.low
    return comparison.difference, comparison.low, comparison.high
