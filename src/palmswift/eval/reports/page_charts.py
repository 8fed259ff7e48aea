"""Where the parts of the report's two charts go, in SVG units; the template draws them."""

from __future__ import annotations

import math
from typing import NamedTuple

from palmswift.eval.reports.report import EvaluationReport
from palmswift.eval.verdicts.comparison import Comparison, Word, extent_of, turned
from palmswift.eval.verdicts.verdict import ShipVerdict

WIDTH, LABELS, NUMBERS, LINE, TOP = 900, 210, 200, 30, 26
"""Width of all, of the names left, of the numbers right; height of a line and of the axis."""
_LONGEST_NAME = 24


class Tick(NamedTuple):
    """A labelled place on the axis."""

    at: float
    label: str


class ForestLine(NamedTuple):
    """One comparison: the interval from `low` to `high` with the difference at `at`."""

    y: float
    name: str
    title: str
    whole: bool
    """Whether it is a suite's, and not a tag's."""
    low: float
    high: float
    at: float
    word: Word | None
    comparison: Comparison


class Forest(NamedTuple):
    """Differences with their 95 % intervals; right of the line is better."""

    width: int
    height: float
    zero: float
    numbers: float
    """Where the column of numbers begins."""
    lines: list[ForestLine]
    ticks: list[Tick]


class TimeLine(NamedTuple):
    """One endpoint's response times: median and 95th percentile, and the mean."""

    y: float
    name: str
    p50: float
    p95: float
    mean: float
    text: str


class Times(NamedTuple):
    """Response times of all endpoints on one axis that begins at 0."""

    width: int
    height: float
    left: float
    lines: list[TimeLine]
    ticks: list[Tick]


def forest(verdict: ShipVerdict) -> Forest | None:
    """The chart of a verdict's comparisons in percent of each measure's scale; None: nothing to
    show. Tags are left out where a suite has none or one that is all of it."""
    shown = [c for c in verdict.comparisons if c.difference is not None]
    if not shown:
        return None
    ends = [turned(c)[1:] for c in shown]
    scales = [extent_of(c.measure) for c in shown]
    reach = max(
        0.02, *(abs(end) / scale for pair, scale in zip(ends, scales, strict=True) for end in pair)
    )
    reach = _round_up(reach)
    left, right = LABELS, WIDTH - NUMBERS
    zero = (left + right) / 2

    def x(share: float) -> float:
        return zero + max(-1.0, min(1.0, share / reach)) * (right - left - 30) / 2

    lines = []
    for index, c in enumerate(shown):
        difference, low, high = (value / extent_of(c.measure) for value in turned(c))
        name = c.suite if c.tag is None else c.tag
        lines.append(
            ForestLine(
                y=TOP + LINE * (index + 0.5),
                name=name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…",
                title=name,
                whole=c.tag is None,
                low=x(low),
                high=x(high),
                at=x(difference),
                word=c.word,
                comparison=c,
            )
        )
    ticks = [Tick(x(part * reach), f"{100 * part * reach:+g}") for part in (-1, -0.5, 0.5, 1)]
    return Forest(
        WIDTH, TOP + LINE * len(lines) + 6, zero, right + 14, lines, [*ticks, Tick(zero, "0")]
    )


def times(report: EvaluationReport) -> Times | None:
    """The chart of response times; None: no endpoint has any."""
    found = []
    for label in report.labels:
        metrics = report.summary(label).metrics
        values = [metrics.get(name) for name in ("latency_p50", "latency_p95", "latency_mean")]
        numbers = [value.value for value in values if value is not None]
        if len(numbers) == 3 and None not in numbers:
            found.append((label, [float(number or 0.0) for number in numbers]))
    if not found:
        return None
    longest = _round_up(max(max(numbers) for _, numbers in found))
    right = WIDTH - NUMBERS

    def x(seconds: float) -> float:
        return LABELS + (right - LABELS - 20) * seconds / longest

    lines = [
        TimeLine(
            TOP + LINE * (index + 0.5),
            label if len(label) <= _LONGEST_NAME else label[: _LONGEST_NAME - 1] + "…",
            x(p50),
            x(p95),
            x(mean),
            f"{p50:.2f} / {p95:.2f} s",
        )
        for index, (label, (p50, p95, mean)) in enumerate(found)
    ]
    ticks = [Tick(x(part * longest), f"{part * longest:g} s") for part in (0, 0.5, 1)]
    return Times(WIDTH, TOP + LINE * len(lines) + 6, LABELS, lines, ticks)


def _round_up(value: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below `value`; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
