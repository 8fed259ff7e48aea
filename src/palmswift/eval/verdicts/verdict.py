"""Did the fine-tune help? The word on one model against another, over all suites.

The statistics are those of significance.py, intervals.py, power.py and sequential.py; docs/
did-it-help.md says in plain words what they do and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from palmswift.eval.suites.scoring import ScoredAnswer
from palmswift.eval.verdicts.comparison import (
    ALPHA,
    DEFAULTS,
    NO_CLUSTERS,
    Comparison,
    Options,
    SuitePlan,
    Word,
    compare_measure,
    extent_of,
    joined,
    measure_of,
    pair,
    turned,
)


class Side(BaseModel):
    """A verdict over all suites, and what it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: Word
    comparisons: list[Comparison]
    """Each suite's, with those of its tags after it."""


class ShipVerdict(Side):
    """The verdict on one model against another."""

    base_label: str
    tuned_label: str
    quick: bool
    """Whether only a part of a suite was asked."""
    sequential: bool
    """Whether the p-values stay valid when one looks again and again."""
    alpha: float = ALPHA
    leaked: int = 0
    """Cases that stand in the training data."""
    checked_files: list[str] = []
    """The training files that the cases were looked for in; empty: not looked for."""
    without_leaked: Side | None = None
    """The same without those cases; null when there are none."""
    alarms: list[str] = []
    """What makes it unsafe whatever the suites show: a failed gate of a safety suite, or ordinary
    text that the model has become worse at."""


def judged(comparison: Comparison, adjusted_p: float, options: Options) -> Comparison:
    """The comparison of a whole suite with its word.

    A difference is shown when the corrected p is at most alpha and the interval leaves out 0. A
    shown decline of a safety suite is unsafe (its p is not corrected: the other suites are no
    excuse), and so is one of a general suite that is shown to go beyond the margin.
    """
    if comparison.difference is None or comparison.p is None:
        return comparison.model_copy(update={"word": "nothing"})
    _, low, high = turned(comparison)
    word: Word = "no_difference"
    if adjusted_p <= options.alpha and low > 0:
        word = "helped"
    elif adjusted_p <= options.alpha and high < 0:
        unsafe = comparison.role == "safety" or (
            comparison.role == "general" and high < -comparison.margin
        )
        word = "unsafe" if unsafe else "hurt"
    return comparison.model_copy(
        update={
            "adjusted_p": adjusted_p,
            "word": word,
            # The interval is one of a fixed n: it shows nothing when one may look again.
            "not_worse": None if options.sequential else low > -comparison.margin,
        }
    )


def overall(comparisons: Sequence[Comparison], *, unsafe_gates: bool = False) -> Word:
    """The word over all suites: the worst that was shown, else whether the task was helped."""
    words = [(c.role, c.word) for c in comparisons if c.tag is None]
    if unsafe_gates or any(word == "unsafe" for _, word in words):
        return "unsafe"
    if any(word == "hurt" for _, word in words):
        return "hurt"
    if any(word == "helped" and role == "task" for role, word in words):
        return "helped"
    if all(word == "nothing" for _, word in words):
        return "nothing"
    return "no_difference"


def side_of(
    suites: Sequence[SuitePlan],
    suite_of: Mapping[str, str],
    base: Sequence[ScoredAnswer],
    tuned: Sequence[ScoredAnswer],
    options: Options,
    *,
    clusters: Mapping[str, str] = NO_CLUSTERS,
    unsafe_gates: bool = False,
) -> Side:
    """All suites compared; `suite_of` gives each case's suite, `clusters` its conversation."""
    wholes: list[Comparison] = []
    parts: list[list[Comparison]] = []
    for suite in suites:
        first = [a for a in base if suite_of.get(a.case) == suite.name]
        second = [a for a in tuned if suite_of.get(a.case) == suite.name]
        measure = measure_of([*first, *second], suite)
        pairs = pair(first, second, measure, clusters)
        wholes.append(compare_measure(suite, measure, joined(pairs.values()), options))
        parts.append(list(_by_tag(suite, first, second, options, clusters)))
    from palmswift.eval.verdicts.significance import holm

    adjusted = {index: whole.p or 0.0 for index, whole in enumerate(wholes)}
    several = [i for i, c in enumerate(wholes) if c.p is not None and c.role != "safety"]
    adjusted.update(zip(several, holm([adjusted[i] for i in several]), strict=True))
    words = [judged(whole, adjusted[index], options) for index, whole in enumerate(wholes)]
    return Side(
        word=overall(words, unsafe_gates=unsafe_gates),
        comparisons=[c for whole, tags in zip(words, parts, strict=True) for c in (whole, *tags)],
    )


def _by_tag(
    suite: SuitePlan,
    base: Sequence[ScoredAnswer],
    tuned: Sequence[ScoredAnswer],
    options: Options,
    clusters: Mapping[str, str],
) -> Iterable[Comparison]:
    tags = dict.fromkeys(tag for answer in tuned for tag in answer.tags)
    asked = {answer.case for answer in tuned}
    for tag in tags:
        if {answer.case for answer in tuned if tag in answer.tags} == asked:
            continue  # the suite itself says as much
        first = [a for a in base if tag in a.tags]
        second = [a for a in tuned if tag in a.tags]
        measure = measure_of([*first, *second], suite.model_copy(update={"primary": None}))
        pairing = joined(pair(first, second, measure, clusters).values())
        yield compare_measure(suite, measure, pairing, options, tag=tag)


def ship_verdict(
    suites: Sequence[SuitePlan],
    suite_of: Mapping[str, str],
    base: Sequence[ScoredAnswer],
    tuned: Sequence[ScoredAnswer],
    labels: tuple[str, str],
    options: Options = DEFAULTS,
    *,
    clusters: Mapping[str, str] = NO_CLUSTERS,
    leaked: frozenset[str] = frozenset(),
    checked_files: Sequence[str] = (),
    alarms: Sequence[str] = (),
) -> ShipVerdict:
    """The verdict on `tuned` against `base`, with and without the cases in `leaked`.

    When only a part of a suite was asked, and fewer cases than a difference of `options.effect`
    needs, there is no verdict but `unsafe`: whoever may look again with more cases until the
    answer pleases would be wrong more often than the p-value says.
    """
    unsafe = bool(alarms)
    whole = side_of(suites, suite_of, base, tuned, options, unsafe_gates=unsafe, clusters=clusters)
    asked = {answer.case for answer in tuned}
    quick_suites = [
        suite
        for suite in suites
        if suite.cases is not None
        and suite.cases > sum(suite_of.get(case) == suite.name for case in asked)
    ]
    word = whole.word
    small = any(_too_few(c, quick_suites, options) for c in whole.comparisons)
    if small and word != "unsafe" and not options.sequential:
        word = "quick"
    rest = None
    known = asked & leaked
    if known:
        rest = side_of(
            suites,
            {case: suite for case, suite in suite_of.items() if case not in leaked},
            [a for a in base if a.case not in leaked],
            [a for a in tuned if a.case not in leaked],
            options,
            unsafe_gates=unsafe,
            clusters=clusters,
        )
    return ShipVerdict(
        word=word,
        comparisons=whole.comparisons,
        base_label=labels[0],
        tuned_label=labels[1],
        quick=bool(quick_suites),
        sequential=options.sequential,
        alpha=options.alpha,
        leaked=len(known),
        checked_files=list(checked_files),
        without_leaked=rest,
        alarms=list(alarms),
    )


def _too_few(comparison: Comparison, quick_suites: Sequence[SuitePlan], options: Options) -> bool:
    """Whether the suite was asked in part, and this part cannot show what it should."""
    if comparison.tag is not None or comparison.suite not in {s.name for s in quick_suites}:
        return False
    wanted = options.effect * extent_of(comparison.measure)
    return comparison.visible is None or comparison.visible > wanted
