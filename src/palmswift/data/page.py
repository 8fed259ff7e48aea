"""The data report as one HTML page that needs no network, in English and Chinese."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from palmswift.data.reasons import CHANGES, REASONS
from palmswift.data.report import DataReport, TokenReport
from palmswift.files import write_text

_WIDTH, _HEIGHT = 720, 180
"""Of the histogram's plot, in SVG units."""


class Bar(NamedTuple):
    """One bin of the histogram in SVG units; over-long rows stand on top of kept ones."""

    x: float
    width: float
    kept: float
    over_length: float
    title: str


class Tick(NamedTuple):
    """A labelled place on an axis, in SVG units."""

    at: float
    label: str


class Chart(NamedTuple):
    """The token histogram, ready to be drawn."""

    width: int
    height: int
    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    limit: Tick | None
    """Where max_length lies; None without one, or when all rows are far below it."""
    far_limit: int | None
    """max_length when it lies beyond the plot."""


def write_page(path: Path, report: DataReport) -> None:
    """Write the report's page to `path` atomically."""
    page = _template().render(
        report=report,
        reasons=REASONS,
        changes=CHANGES,
        chart=chart(report.tokens, report.template.max_length if report.template else None)
        if report.tokens
        else None,
    )
    write_text(path, page)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def chart(tokens: TokenReport, max_length: int | None) -> Chart:
    """Bars, axes and the length limit of the token histogram, in SVG units."""
    longest = tokens.histogram[-1].stop
    near = max_length is not None and max_length <= 1.6 * longest
    span = max(longest, 1.04 * max_length) if near and max_length else longest
    tallest = max(part.kept + part.over_length for part in tokens.histogram)
    bars = [
        Bar(
            x=_WIDTH * part.start / span,
            width=max(_WIDTH * (part.stop - part.start) / span - 1, 0.5),
            kept=_HEIGHT * part.kept / tallest,
            over_length=_HEIGHT * part.over_length / tallest,
            title=f"{part.start}-{part.stop - 1}: {part.kept} + {part.over_length}",
        )
        for part in tokens.histogram
    ]
    return Chart(
        width=_WIDTH,
        height=_HEIGHT,
        bars=bars,
        x_ticks=[Tick(_WIDTH * value / span, str(value)) for value in _round_steps(span)],
        y_ticks=[
            Tick(_HEIGHT - _HEIGHT * value / tallest, str(value)) for value in _round_steps(tallest)
        ],
        limit=Tick(_WIDTH * max_length / span, str(max_length)) if near and max_length else None,
        far_limit=None if near else max_length,
    )


def _round_steps(top: float) -> list[int]:
    """At most eight values from 0 to `top`, in steps of 1, 2 or 5 times a power of ten."""
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if top / step <= 7)
    return list(range(0, int(top) + 1, step))
