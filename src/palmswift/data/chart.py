"""Where the parts of the token histogram go, in SVG units."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from palmswift.data.report import Bin, TokenReport

WIDTH, HEIGHT = 720, 180
"""Of the plot."""
_REST = 40
"""Width of the strip for rows far longer than the others, its gap included."""
_LABEL = 86
"""Width that a label over the plot takes at most."""
_MARGIN = 50
"""Right of the plot."""
_NEAR = 1.6
"""max_length is drawn where it is at most this many times the longest bin."""


class Bar(NamedTuple):
    """One bin; over-long rows stand on top of kept ones."""

    x: float
    width: float
    kept: float
    over_length: float
    title: str


class Tick(NamedTuple):
    """A labelled place on an axis."""

    at: float
    label: str


class Mark(NamedTuple):
    """A line through the plot with its label above it."""

    at: float
    label: str
    level: int
    """0 stands lowest; labels that would touch stand on different levels."""
    leftward: bool
    """Whether the label stands left of the line, because there is no room right of it."""
    limit: bool
    """Whether it is max_length."""


class Chart(NamedTuple):
    """The token histogram, ready to be drawn."""

    width: int
    height: int
    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Mark]
    levels: int
    """Levels of labels above the plot."""
    far_limit: int | None
    """max_length when it lies beyond the plot."""


def chart(tokens: TokenReport, max_length: int | None) -> Chart:
    """Bars, axes, percentiles and the length limit of the token histogram."""
    closed = [part for part in tokens.histogram if part.stop is not None]
    rest = [part for part in tokens.histogram if part.stop is None]
    width = WIDTH - _REST * len(rest)
    longest = tokens.histogram[-1].start if rest else _stop(closed[-1])
    near = (
        max_length is not None
        and max_length <= _NEAR * longest
        and not (rest and max_length > longest)
    )
    span = max(longest, 1.04 * max_length) if near and max_length else longest
    tallest = max(part.kept + part.over_length for part in tokens.histogram)
    bars = [
        _bar(part, width * part.start / span, width * (_stop(part) - part.start) / span, tallest)
        for part in closed
    ]
    bars += [_bar(part, WIDTH - _REST + 12, _REST - 12, tallest) for part in rest]
    x_ticks = [Tick(width * value / span, str(value)) for value in _round_steps(span)]
    if rest:
        x_ticks = [tick for tick in x_ticks if tick.at < width - 30]
        x_ticks.append(Tick(WIDTH - _REST / 2 + 6, f"≥ {rest[0].start}"))
    marks = _marks(tokens, max_length if near else None, span, width)
    return Chart(
        width=WIDTH,
        height=HEIGHT,
        bars=bars,
        x_ticks=x_ticks,
        y_ticks=[
            Tick(HEIGHT - HEIGHT * value / tallest, str(value)) for value in _round_steps(tallest)
        ],
        marks=marks,
        levels=max(mark.level for mark in marks) + 1,
        far_limit=None if near else max_length,
    )


def _bar(part: Bin, x: float, width: float, tallest: int) -> Bar:
    reach = f"≥ {part.start}" if part.stop is None else f"{part.start}-{part.stop - 1}"
    over = f" + {part.over_length} over_length" if part.over_length else ""
    return Bar(
        x=x,
        width=max(width - 1, 0.5),
        kept=HEIGHT * part.kept / tallest,
        over_length=HEIGHT * part.over_length / tallest,
        title=f"{reach}: {part.kept}{over}",
    )


def _stop(part: Bin) -> int:
    return part.start + 1 if part.stop is None else part.stop


def _marks(tokens: TokenReport, limit: int | None, span: float, width: float) -> list[Mark]:
    spread = tokens.tokens
    names: dict[int, str] = {}
    for name, value in (("p50", spread.median), ("p95", spread.p95), ("p99", spread.p99)):
        names[value] = f"{names[value]} {name}" if value in names else name
    placed = [(value, f"{name} {value}", False) for value, name in names.items() if value <= span]
    if limit is not None:
        placed.append((limit, f"max_length {limit}", True))
    marks: list[Mark] = []
    begins: list[float] = []
    # From the right: so the line of a mark that stands higher runs left of the labels below it.
    for value, label, is_limit in sorted(placed, reverse=True):
        at = width * value / span
        leftward = at > WIDTH - _LABEL + _MARGIN
        begin = at - _LABEL if leftward else at
        level = next((n for n, far in enumerate(begins) if begin + _LABEL <= far), len(begins))
        begins[level : level + 1] = [begin]
        marks.append(Mark(at, label, level, leftward, is_limit))
    return marks


def _round_steps(top: float) -> list[int]:
    """At most eight values from 0 to `top`, in steps of 1, 2 or 5 times a power of ten."""
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if top / step <= 7)
    return list(range(0, int(top) + 1, step))
