"""The report's numbers as a table: a group a tag, a line a metric, a column an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from palmswift.eval.measures.metrics import METRICS, metric_of
from palmswift.eval.reports.report import EvaluationReport
from palmswift.eval.suites.summary import Measurement
from palmswift.eval.verdicts.gate import Gate, GateResult

_OF_THE_SERVER = ("answer_rate", "error_rate", "latency_mean", "latency_p50", "latency_p95")


class Cell(NamedTuple):
    """One number of the table: what is shown, and what it is made of."""

    text: str
    note: str


class Row(NamedTuple):
    """A line of the summary table."""

    metric: str
    cells: list[Cell]
    """One for each endpoint."""
    difference: str
    """The last endpoint less the first; empty when there is one."""


class Group(NamedTuple):
    """The lines of one suite or tag."""

    tag: str | None
    """The suite's name or the tag; None: all cases."""
    cases: int
    rows: list[Row]


def groups(report: EvaluationReport) -> list[Group]:
    """The table of a report: all cases first, then each suite's if several, then each tag's."""
    keys = dict.fromkeys((summary.suite, summary.tag) for summary in report.summaries)
    ordered = sorted(keys, key=lambda key: (key != (None, None), key[0] is None))
    return [_group(report, suite, tag) for suite, tag in ordered]


def number(metric: str, value: float | None) -> str:
    """A value as it is read: a percentage, a score, or seconds."""
    if value is None:
        return "–"
    match metric_of(metric).scale:
        case "share":
            return f"{value:.1%}"
        case "seconds":
            return f"{value:.3f} s"
        case "hundred":
            return f"{value:.1f}"
        case "rating" | "plain":
            return f"{value:.2f}"
        case _:
            return f"{value:.3f}"


def bound_words(gate: Gate) -> str:
    """A gate in words."""
    bounds = [f">= {number(gate.metric, gate.min)}"] if gate.min is not None else []
    bounds += [f"<= {number(gate.metric, gate.max)}"] if gate.max is not None else []
    if gate.max_drop is not None:
        bounds.append(f"worse than the base by at most {number(gate.metric, gate.max_drop)}")
    if gate.non_inferior_to is not None:
        margin = f" by {number(gate.metric, gate.margin)}" if gate.margin is not None else ""
        bounds.append(f"shown not to be worse than {gate.non_inferior_to}{margin}")
    return f"{gate.metric} of {gate.tag or 'all cases'} {' and '.join(bounds)}"


def gate_words(result: GateResult) -> str:
    """What was observed, and why that is not enough."""
    if result.state == "not_checked":
        return "; ".join(result.reasons) or f"no endpoint called {result.endpoint} was tested"
    if result.observed is None:
        return "nothing to measure"
    seen = f"{number(result.gate.metric, result.observed)} of {result.n}"
    # A bound that is missed is plain from both numbers; the other reasons are not.
    other = [reason for reason in result.reasons if " is below " not in reason]
    other = [reason for reason in other if " is above " not in reason]
    return "; ".join([seen, *other])


def _group(report: EvaluationReport, suite: str | None, tag: str | None) -> Group:
    summaries = [
        found
        for label in report.labels
        for found in report.summaries
        if (found.endpoint, found.suite, found.tag) == (label, suite, tag)
    ]
    names = dict.fromkeys(name for summary in summaries for name in summary.metrics)
    order = {name: rank for rank, name in enumerate(METRICS)}
    rows = []
    for name in sorted(names, key=lambda name: order.get(name, len(order))):
        if (suite, tag) == (None, None) or name not in _OF_THE_SERVER:
            measured = [summary.metrics.get(name) for summary in summaries]
            cells = [_cell(name, measurement) for measurement in measured]
            rows.append(Row(name, cells, _difference(name, measured)))
    return Group(suite or tag, summaries[0].cases if summaries else 0, rows)


def _cell(name: str, measurement: Measurement | None) -> Cell:
    if measurement is None:
        return Cell("–", "")
    made_of = (
        f"{measurement.n}"
        if measurement.count is None
        else (f"{measurement.count}/{measurement.n}")
    )
    return Cell(number(name, measurement.value), made_of)


def _difference(name: str, measured: Sequence[Measurement | None]) -> str:
    first, last = measured[0], measured[-1]
    if len(measured) < 2 or first is None or last is None:
        return ""
    if first.value is None or last.value is None:
        return ""
    change = last.value - first.value
    scale = metric_of(name).scale
    if scale == "share":
        return f"{change * 100:+.1f} pp"
    return f"{change:+.3f} s" if scale == "seconds" else f"{change:+.1f}"
