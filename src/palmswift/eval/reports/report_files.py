"""Writes an evaluation report in every form that people and tools read it in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palmswift.eval.measures.metrics import METRICS
from palmswift.eval.reports.report import (
    CSV_NAME,
    HTML_NAME,
    JSON_NAME,
    JUNIT_NAME,
    MARKDOWN_NAME,
    EvaluationReport,
)
from palmswift.files import write_json, write_text

_BEFORE = (
    *("suite", "endpoint", "case", "repeat", "tags", "question", "reference", "answer", "state"),
    *("reason", "passed", "score"),
)
_AFTER = ("failed_assertions", "leaked", "finish_reason", "seconds", "attempts")


def write_report(report: EvaluationReport, folder: Path) -> None:
    """Write the report as JSON, CSV, HTML, Markdown and JUnit XML into `folder`."""
    from palmswift.eval.reports.junit import junit_text
    from palmswift.eval.reports.markdown import markdown_text
    from palmswift.eval.reports.page import render

    write_json(folder / JSON_NAME, report.model_dump(mode="json"))
    write_text(folder / CSV_NAME, csv_text(report))
    write_text(folder / HTML_NAME, render(report))
    write_text(folder / MARKDOWN_NAME, markdown_text(report))
    write_text(folder / JUNIT_NAME, junit_text(report))


def csv_text(report: EvaluationReport) -> str:
    """The report with one line for each endpoint, case and repeat.

    It begins with a byte order mark, without which Excel reads Chinese wrongly. A text that a
    spreadsheet would run as a formula gets an apostrophe before it.
    """
    buffer = io.StringIO(newline="")
    buffer.write("\ufeff")
    writer = csv.writer(buffer)
    names = _score_names(report)
    writer.writerow([*_BEFORE, *names, *_AFTER])
    for row in _csv_rows(report, names):
        writer.writerow([_cell(value) for value in row])
    return buffer.getvalue()


def _score_names(report: EvaluationReport) -> list[str]:
    """The scores that any answer has, a column each, in the order of the metrics' table."""
    found = {name for case in report.cases for answer in case.answers for name in answer.scores}
    return [*(name for name in METRICS if name in found), *sorted(found - METRICS.keys())]


def _csv_rows(report: EvaluationReport, names: list[str]) -> Iterator[list[Any]]:
    for label in report.labels:
        for case in report.cases:
            for answer in case.answers:
                if answer.endpoint != label:
                    continue
                failed = [f"{a.kind}: {a.expected}" for a in answer.assertions if not a.passed]
                yield [
                    case.suite,
                    label,
                    case.id,
                    answer.repeat,
                    " ".join(case.tags),
                    case.messages[-1].content,
                    case.reference,
                    answer.answer,
                    answer.state,
                    answer.reason,
                    answer.passed,
                    answer.score,
                    *(answer.scores.get(name) for name in names),
                    "; ".join(failed),
                    case.leaked,
                    answer.finish_reason,
                    answer.seconds,
                    answer.attempts,
                ]


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
