"""The report of a load test: `bench.json`, a page with curves, and a table on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from palmswift.eval.load.bench_stats import Estimate, RunResult, estimate, value_of
from palmswift.files import write_json, write_text
from palmswift.paths import project_root

JSON_NAME = "bench.json"
HTML_NAME = "bench.html"

TIMES = ("ttft", "ttfot", "itl", "tpot", "e2e")
_SUMMED = (
    *("requests_per_second", "output_tokens_per_second", "error_rate"),
    *(f"{name}_{share}" for name in TIMES for share in ("mean", "p50", "p95", "p99")),
)
_WIDTH, _HEIGHT, _EDGE = 620, 240, 48


class Level(BaseModel):
    """All runs of one load."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    load: float
    valid: bool
    meets_slo: bool | None
    """Null when no objective was given."""
    estimates: dict[str, Estimate]
    """Means over runs by name: `requests_per_second`, `ttft_p95`, ...; times in seconds."""
    runs: list[RunResult]


class BenchReport(BaseModel):
    """`bench.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="palmswift load test")

    version: Literal[1] = 1
    created_at: str
    base_url: str
    model: str
    loop: Literal["closed", "open"]
    """Loads are users (closed) or requests a second (open)."""
    arrivals: Literal["poisson", "constant"] | None
    """Of an open loop."""
    request: dict[str, Any]
    """What every request has besides its messages."""
    valid: bool
    """Whether the client was fit to measure every run; if not, no number here is to be trusted."""
    knee: float | None
    """The smallest load that reaches 90 % of the highest throughput."""
    slo: list[str]
    most_meeting_slo: float | None
    """The largest load that was tried and met all objectives; null: none, or no objective."""
    least_missing_slo: float | None
    """The smallest load above it that did not; null: every load that was tried did."""
    verdict: str
    """All this in one line."""
    levels: list[Level]


def level_of(load: float, runs: Sequence[RunResult], meets_slo: bool | None) -> Level:
    """The runs of one load together."""
    estimates = {}
    for name in _SUMMED:
        values = [value for run in runs if (value := value_of(run, name)) is not None]
        found = estimate(values) if len(values) == len(runs) else None
        if found is not None:
            estimates[name] = found
    valid = all(run.valid for run in runs)
    return Level(load=load, valid=valid, meets_slo=meets_slo, estimates=estimates, runs=list(runs))


def write_bench(report: BenchReport, out: Path) -> None:
    """Write both files into the folder `out`."""
    write_json(out / JSON_NAME, report.model_dump(mode="json"))
    write_text(out / HTML_NAME, page(report))


def unit(report: BenchReport) -> str:
    """What loads are counted in."""
    return "users" if report.loop == "closed" else "requests/s"


def cells(report: BenchReport, level: Level) -> list[str]:
    """A row of the table: load, throughput, times, errors, whether it counts."""

    def number(name: str, scale: float, digits: int) -> str:
        found = level.estimates.get(name)
        if found is None:
            return "-"
        text = f"{found.mean * scale:.{digits}f}"
        if found.half_width is not None:
            text += f" ±{found.half_width * scale:.{digits}f}"
        return text

    per_event = [run.tokens_per_event for run in level.runs if run.tokens_per_event is not None]
    marks = [] if level.valid else ["INVALID"]
    if level.meets_slo is not None:
        marks.append("meets SLO" if level.meets_slo else "misses SLO")
    return [
        f"{level.load:g}",
        ", ".join(marks),
        number("requests_per_second", 1, 2),
        number("output_tokens_per_second", 1, 0),
        *(number(f"{name}_{share}", 1000, 1) for name, share in COLUMNS),
        f"{sum(per_event) / len(per_event):.2f}" if per_event else "-",
        number("error_rate", 100, 1),
    ]


COLUMNS = (
    ("ttft", "p50"),
    ("ttft", "p99"),
    ("ttfot", "p50"),
    ("itl", "p50"),
    ("itl", "p99"),
    ("tpot", "p50"),
    ("e2e", "p50"),
    ("e2e", "p99"),
)
"""The times that the tables show, in milliseconds."""


def headings(report: BenchReport) -> list[str]:
    """The names of the columns of `cells`."""
    times = [f"{name.upper()} {share}" for name, share in COLUMNS]
    return [unit(report), "", "req/s", "tok/s", *times, "tok/event", "errors %"]


class Curve(NamedTuple):
    """A line of a chart, in its coordinates."""

    title: str
    unit: str
    points: list[tuple[float, float]]
    ticks: list[tuple[float, str]]
    """Along the loads."""
    top: str
    """What the upper edge stands for."""


def page(report: BenchReport) -> str:
    """One HTML file that needs nothing else."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("palmswift.eval.load"), undefined=StrictUndefined, autoescape=True
    )
    wanted = (
        ("Throughput", "requests_per_second", "requests/s", 1.0),
        ("Time to first token, p99", "ttft_p99", "ms", 1000.0),
        ("Time between events, p99", "itl_p99", "ms", 1000.0),
        ("Whole answer, p99", "e2e_p99", "ms", 1000.0),
    )
    curves = [_curve(report, *each) for each in wanted]
    return environment.get_template("bench.html.j2").render(
        report=report,
        unit=unit(report),
        headings=headings(report),
        rows=[cells(report, level) for level in report.levels],
        curves=[curve for curve in curves if curve is not None],
        width=_WIDTH,
        height=_HEIGHT,
        edge=_EDGE,
    )


def _curve(report: BenchReport, title: str, name: str, unit_: str, scale: float) -> Curve | None:
    """A metric over the loads, which stand at equal distances; None when it was not measured."""
    known = [level for level in report.levels if name in level.estimates]
    if len(known) < 2:
        return None
    values = [level.estimates[name].mean * scale for level in known]
    top = max(values) * 1.08 or 1.0
    across = (_WIDTH - 2 * _EDGE) / (len(known) - 1)
    places = [_EDGE + across * index for index in range(len(known))]
    inner = _HEIGHT - 2 * _EDGE
    points = [(x, _HEIGHT - _EDGE - inner * v / top) for x, v in zip(places, values, strict=True)]
    ticks = [(x, f"{level.load:g}") for x, level in zip(places, known, strict=True)]
    return Curve(title, unit_, points, ticks, f"{top:.3g} {unit_}")


def bench_schema() -> str:
    """The JSON Schema of `bench.json`, as it stands in eval/bench.schema.json."""
    schema = BenchReport.model_json_schema(mode="serialization")
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_text(project_root() / "eval" / "bench.schema.json", bench_schema())
