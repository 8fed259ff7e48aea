"""The evaluation report as a short Markdown text for a pull request or a job's summary."""

from __future__ import annotations

import re

from palmswift.eval.reports.report import CaseResult, EvaluationReport
from palmswift.eval.reports.table import bound_words, gate_words
from palmswift.eval.verdicts.comparison import Comparison
from palmswift.eval.verdicts.regressions import regressions
from palmswift.eval.verdicts.verdict import ShipVerdict
from palmswift.eval.verdicts.verdict_words import (
    amount_words,
    headline,
    interval_words,
    measure_words,
    p_words,
    sentences,
    value_words,
    word_of,
)

_MARKS = {
    "helped": "✅",
    "no_difference": "➖",
    "hurt": "❌",
    "unsafe": "⛔",
    "quick": "🔍",
    "nothing": "∅",
}
_SHOWN = 5
_LONGEST = 200
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~@&])")


def markdown_text(report: EvaluationReport) -> str:
    """Verdict, comparison, gates and the first regressions; ends with a line break."""
    lines = [f"## {escaped(report.suite)}", ""]
    if report.unanswered:
        lines += [f"⚠️ {report.unanswered} requests have no reply: the report is not complete.", ""]
    for verdict in report.comparisons:
        lines += _verdict(verdict)
    if not report.comparisons:
        lines += _values(report)
    if report.gates:
        lines += ["| gate | endpoint | observed | |", "|---|---|---|---|"]
        marks = {"passed": "✅", "failed": "❌", "not_checked": "–"}
        for gate in report.gates:
            cells = (bound_words(gate.gate), gate.endpoint, gate_words(gate), marks[gate.state])
            lines.append(_row(cells))
        lines.append("")
    for verdict in report.comparisons:
        lines += _regressions(report, verdict)
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str, longest: int = _LONGEST) -> str:
    """Text of a suite or an answer on one line, that no Markdown or mention comes of."""
    line = " ".join(text.split())
    cut = line if len(line) <= longest else line[:longest] + "…"
    return _SPECIAL.sub(r"\\\1", cut).replace("@", "@\u200b")


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"


def _verdict(verdict: ShipVerdict) -> list[str]:
    lines = [
        f"### {_MARKS[verdict.word]} {headline(verdict).en}",
        "",
        f"{escaped(verdict.tuned_label)} against {escaped(verdict.base_label)}",
        "",
        "| suite | measure | cases | "
        f"{escaped(verdict.base_label)} | {escaped(verdict.tuned_label)} | difference | "
        "95 % interval | p | |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    lines += [_row(_cells(comparison)) for comparison in verdict.comparisons]
    lines.append("")
    lines += [f"- {escaped(sentence.en, 2000)}" for sentence in sentences(verdict)]
    return [*lines, ""]


def _cells(c: Comparison) -> tuple[str, ...]:
    name = c.suite if c.tag is None else f"· {c.tag}"
    change = "–" if c.difference is None else amount_words(c.measure, c.difference).en
    p = c.adjusted_p if c.adjusted_p is not None else c.p
    return (
        name,
        measure_words(c.measure).en,
        str(c.cases),
        value_words(c.measure, c.base),
        value_words(c.measure, c.tuned),
        change,
        interval_words(c),
        p_words(p),
        word_of(c.word).en,
    )


def _values(report: EvaluationReport) -> list[str]:
    lines = ["| cases | measure | " + " | ".join(map(escaped, report.labels)) + " |"]
    lines.append("|---|---|" + "--:|" * len(report.labels))
    from palmswift.eval.reports.table import groups

    for group in groups(report):
        for row in group.rows:
            cells = [f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row.cells]
            lines.append(_row((group.tag or "all", measure_words(row.metric).en, *cells)))
    return [*lines, ""]


def _regressions(report: EvaluationReport, verdict: ShipVerdict) -> list[str]:
    found = regressions(report, verdict.base_label, verdict.tuned_label)
    if not found:
        return []
    lines = [
        f"<details><summary>{len(found)} cases got worse at {escaped(verdict.tuned_label)}"
        f"{f', the first {_SHOWN}' if len(found) > _SHOWN else ''}</summary>",
        "",
    ]
    for regression in found[:_SHOWN]:
        lines += _case(regression.case, verdict)
    return [*lines, "", "</details>", ""]


def _case(case: CaseResult, verdict: ShipVerdict) -> list[str]:
    lines = [f"- **{escaped(case.id)}** {escaped(case.messages[-1].content)}"]
    for label in (verdict.base_label, verdict.tuned_label):
        answer = next((a for a in case.answers if a.endpoint == label), None)
        if answer is not None:
            said = answer.answer if answer.answer is not None else f"({answer.reason})"
            lines.append(f"  - {escaped(label)}: {escaped(said)}")
    return lines
