"""The report's numbers as a table: a group a tag, a line a metric, a column an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from palmswift.eval.gate import Gate, GateResult
from palmswift.eval.metrics import MetricName
from palmswift.eval.report import EvaluationReport
from palmswift.eval.summary import Measurement

_ORDER: tuple[MetricName, ...] = (
    *("pass_rate", "exact_match", "chrf", "bleu", "answer_rate", "error_rate"),
    *("latency_mean", "latency_p50", "latency_p95"),
)
_OF_THE_SERVER = ("answer_rate", "error_rate", "latency_mean", "latency_p50", "latency_p95")
_SHARES = ("pass_rate", "exact_match", "answer_rate", "error_rate")


class Cell(NamedTuple):
    """One number of the table: what is shown, and what it is made of."""

    text: str
    note: str


class Row(NamedTuple):
    """A line of the summary table."""

    metric: MetricName
    cells: list[Cell]
    """One for each endpoint."""
    difference: str
    """The last endpoint less the first; empty when there is one."""


class Group(NamedTuple):
    """The lines of one tag."""

    tag: str | None
    cases: int
    rows: list[Row]


def groups(report: EvaluationReport) -> list[Group]:
    """The table of a report: all cases first, then each tag's quality."""
    tags = dict.fromkeys(summary.tag for summary in report.summaries)
    return [_group(report, tag) for tag in tags]


def number(metric: MetricName, value: float | None) -> str:
    """A value as it is read: a percentage, a score, or seconds."""
    if value is None:
        return "–"
    if metric in _SHARES:
        return f"{value:.1%}"
    if metric.startswith("latency"):
        return f"{value:.3f} s"
    return f"{value:.1f}"


def bound_words(gate: Gate) -> str:
    """A gate in words."""
    bounds = [f">= {number(gate.metric, gate.min)}"] if gate.min is not None else []
    bounds += [f"<= {number(gate.metric, gate.max)}"] if gate.max is not None else []
    return f"{gate.metric} of {gate.tag or 'all cases'} {' and '.join(bounds)}"


def gate_words(result: GateResult) -> str:
    """What was observed, against what was asked."""
    if result.state == "not_checked":
        return f"no endpoint called {result.endpoint} was tested"
    if result.observed is None:
        return "nothing to measure"
    return f"{number(result.gate.metric, result.observed)} of {result.n}"


def _group(report: EvaluationReport, tag: str | None) -> Group:
    summaries = [report.summary(label, tag) for label in report.labels]
    names = dict.fromkeys(name for summary in summaries for name in summary.metrics)
    rows = []
    for name in _ORDER:
        if name in names and (tag is None or name not in _OF_THE_SERVER):
            measured = [summary.metrics.get(name) for summary in summaries]
            cells = [_cell(name, measurement) for measurement in measured]
            rows.append(Row(name, cells, _difference(name, measured)))
    return Group(tag, summaries[0].cases if summaries else 0, rows)


def _cell(name: MetricName, measurement: Measurement | None) -> Cell:
    if measurement is None:
        return Cell("–", "")
    made_of = (
        f"{measurement.n}"
        if measurement.count is None
        else (f"{measurement.count}/{measurement.n}")
    )
    return Cell(number(name, measurement.value), made_of)


def _difference(name: MetricName, measured: Sequence[Measurement | None]) -> str:
    first, last = measured[0], measured[-1]
    if len(measured) < 2 or first is None or last is None:
        return ""
    if first.value is None or last.value is None:
        return ""
    change = last.value - first.value
    if name in _SHARES:
        return f"{change * 100:+.1f} pp"
    return f"{change:+.3f} s" if name.startswith("latency") else f"{change:+.1f}"
