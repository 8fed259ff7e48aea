"""The data report for a terminal: files, what was rejected, found and changed, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from palmswift.data.policy import CHANGES
from palmswift.data.report import CodeReport, DataReport, Spread
from palmswift.data.row import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_SUGGESTIONS = 5
_DETAIL = 160


def summary_table(report: DataReport) -> Group:
    """What a person needs to see at the end of a run; report.html has the rest."""
    from rich.console import Group, RenderableType

    parts: list[RenderableType] = [_files(report)]
    if report.reasons:
        parts.append(_codes("rejected", "red", report.reasons))
    if report.findings:
        parts.append(_codes("kept, but look", "yellow", report.findings))
    if report.changes:
        parts.append(_changes(report))
    if report.tokens:
        spreads = [("all", report.tokens.tokens), ("trained on", report.tokens.supervised)]
        parts.append(spread_table("tokens a row", spreads))
    if report.suggestions:
        parts.append(_suggestions(report))
    return Group(*parts)


def _files(report: DataReport) -> Table:
    from rich.markup import escape

    table = _table(show_footer=True)
    footer = f"{report.train_rows:,} to train on, {report.val_rows:,} held out"
    table.add_column("file", footer, overflow="fold")
    for name, total, style in (
        ("read", report.read, ""),
        ("kept", report.kept, "green"),
        ("rejected", report.rejected, "red" if report.rejected else ""),
    ):
        table.add_column(name, f"{total:,}", justify="right", style=style)
    for file in report.files:
        name = f"{file.source} ({file.use}, {file.format}, {file.encoding})"
        name = "\n".join([name, *(f"  {note}" for note in file.notes)])
        table.add_row(escape(name), *(f"{n:,}" for n in (file.read, file.kept, file.rejected)))
    return table


def _codes(title: str, style: str, codes: list[CodeReport]) -> Table:
    from rich.markup import escape

    table = _table()
    table.add_column(title, style=style)
    table.add_column("rows", justify="right")
    table.add_column("what it means, and the first one", overflow="fold")
    for code in codes:
        first = code.examples[0]
        where = f"{first.place}: {first.detail}" if first.detail else first.place
        where = printable(where, _DETAIL)
        table.add_row(
            code.code, f"{code.count:,}", f"{escape(code.meaning)} [dim]{escape(where)}[/dim]"
        )
    return table


def _changes(report: DataReport) -> Table:
    table = _table()
    table.add_column("changed")
    table.add_column("rows", justify="right")
    table.add_column("what was done", overflow="fold")
    for name, count in report.changes.items():
        table.add_row(name, f"{count:,}", CHANGES[name].en)
    return table


def spread_table(title: str, spreads: Sequence[tuple[str, Spread]]) -> Table:
    """A line for each spread, under the names of its percentiles."""
    table = _table()
    table.add_column(title)
    names = ("min", "median", "p90", "p95", "p99", "max", "total")
    for name in names:
        table.add_column(name, justify="right")
    for label, spread in spreads:
        table.add_row(label, *(f"{getattr(spread, name):,}" for name in names))
    return table


def _suggestions(report: DataReport) -> Table:
    from rich.markup import escape

    table = _table()
    table.add_column("what to do next", overflow="fold")
    for suggestion in report.suggestions[:_SUGGESTIONS]:
        flags = f"\n  [bold]{escape(shlex.join(suggestion.flags))}[/bold]" * bool(suggestion.flags)
        table.add_row(escape(suggestion.en) + flags)
    return table


def _table(*, show_footer: bool = False) -> Table:
    from rich import box
    from rich.table import Table

    return Table(show_footer=show_footer, box=box.SIMPLE_HEAD, pad_edge=False)
