"""Rows of CSV; cells stay the text that was typed, a broken record costs as few lines as can be."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from palmswift.data.lines import LONGEST_ROW, Line, Lines, too_large
from palmswift.data.row import Place, Rejection, RowError, SourceRow

_DELIMITERS = ",;\t|"

_FARTHEST, _LONGEST_TORN = 2000, 1 << 20
"""Lines and characters that a quoted cell may go on for; beyond, it is an unclosed quote."""

_STRAY = 100
"""Lines within which the end of a text is looked for whose quotes are broken."""

_SEPARATOR_LINE = re.compile(r"sep=(.)\r?$")
_SENTENCE = re.compile(r".*[。！？…].*|.*[!?]|.{20,} .*\.|.{60,}", re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*%?")


class Dialect(NamedTuple):
    """How a table is written."""

    delimiter: str = ","
    quote: str | None = '"'
    """None: quotes are plain characters."""
    escape: str | None = None
    """What stands before a quote inside a quoted cell; None where quotes are doubled."""

    def record(self, lines: Iterable[str]) -> list[str]:
        """The cells of the record that the lines begin with; csv.Error if they form none."""
        return next(
            csv.reader(
                lines,
                delimiter=self.delimiter,
                quotechar=self.quote,
                quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
                escapechar=self.escape,
                doublequote=self.escape is None,
                strict=True,
            )
        )

    def quotes(self, text: str) -> int:
        """How many quotes stand in the text that open, close or double one."""
        if self.quote is None:
            return 0
        return text.count(self.quote) - (text.count(self.escape + self.quote) if self.escape else 0)


class Table(NamedTuple):
    """A CSV file's dialect and the names of its columns."""

    dialect: Dialect
    columns: tuple[str, ...]


def open_table(sample: str) -> Table:
    """The table that begins with `sample`, whose last line may be cut.

    Raises `RowError` (code `broken_csv`) when there is no header, or it names a column twice.
    """
    csv.field_size_limit(LONGEST_ROW)  # process-wide; the module has no limit of a reader's own
    whole = sample[: sample.rfind("\n") + 1] or sample
    header = next((line for line in whole.split("\n") if line.strip()), "")
    if told := _SEPARATOR_LINE.match(header):
        delimiters = told.group(1)
    else:
        counts = Counter(character for character in header if character in _DELIMITERS)
        delimiters = "".join(character for character, _ in counts.most_common()) or ","
    quote = "'" if _all_quoted(header, delimiters, "'") else '"'
    tables = [_with_header(Dialect(delimiter, quote), whole) for delimiter in delimiters]
    opened = [table for table in tables if table]
    if not opened:
        raise RowError("broken_csv", f"the header cannot be read: `{header[:40]}`")
    best = _requoted(max(opened, key=lambda table: _whole_records(table, whole)), whole)
    check_columns(best.columns)
    return best


def _all_quoted(header: str, delimiters: str, quote: str) -> bool:
    cells = re.split(f"[{re.escape(delimiters)}]", header.strip())
    return all(len(cell) > 1 and cell[0] == cell[-1] == quote for cell in cells)


def _requoted(table: Table, text: str) -> Table:
    """The table with quotes that are plain, or escaped rather than doubled, if more can be read.

    One record that is read more may be damage that looks so, unless nothing else can be read.
    """
    delimiter = table.dialect.delimiter
    other = None
    if delimiter == "\t" and _quotes_are_plain(text):
        other = Dialect(delimiter, None)
    elif '\\"' in text and not re.search(r'[^",;\t|\s\\]""|""[^",;\t|\s]', text):
        other = Dialect(delimiter, '"', "\\")
    requoted = other and _with_header(other, text)
    if not requoted:
        return table
    count = _whole_records(table, text)
    return requoted if _whole_records(requoted, text) > count + (count > 0) else table


def _with_header(dialect: Dialect, text: str) -> Table | None:
    try:
        cells = _header(dialect, Lines([text]))
    except csv.Error:
        return None
    return Table(dialect, tuple(cell.strip() for cell in cells))


def _header(dialect: Dialect, lines: Lines) -> list[str]:
    for line in lines:
        if line.text.strip() and not _SEPARATOR_LINE.match(line.text):
            return _record(dialect, line, lines)[0]
    return []


def _whole_records(table: Table, text: str) -> int:
    return sum(isinstance(row, SourceRow) for row in rows(Lines([text]), "", table))


def _quotes_are_plain(text: str) -> bool:
    """Whether quotes stand at the beginning of cells, but around none."""
    cells = [cell.strip("\r") for line in text.split("\n") for cell in line.split("\t")]
    opened = [cell for cell in cells if cell.startswith('"')]
    return bool(opened) and not any(cell.endswith('"') and len(cell) > 1 for cell in opened)


def check_columns(columns: Sequence[str]) -> None:
    """Raises `RowError` when names of columns stand twice, or look like a row of the table."""
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise RowError("broken_csv", f"the header names `{twice[0]}` twice")
    names = [name for name in columns if name]
    sentences = [name for name in names if _SENTENCE.fullmatch(name)]
    if all(map(_NUMBER.fullmatch, names)) or len(sentences) * 2 >= len(names):
        shown = (sentences or names or [""])[0]
        shown = shown if len(shown) <= 40 else f"{shown[:39]}…"
        detail = f"the first line is not a header but looks like a row (`{shown}`): put the names "
        raise RowError("broken_csv", detail + "of the columns above it, such as query,response")


def rows(lines: Lines, source: str, table: Table) -> Iterator[SourceRow | Rejection]:
    """The rows below the header; records in which every cell is empty are passed over."""
    _header(table.dialect, lines)
    number = 1
    for line in lines:
        if not line.text.strip("\r"):
            continue
        row = _row(line, lines, Place(source, line.number, number), table)
        if row:
            yield row
            number += 1


def _row(line: Line, lines: Lines, place: Place, table: Table) -> SourceRow | Rejection | None:
    if not line.whole:
        return too_large(place, line.text)
    try:
        cells, taken = _record(table.dialect, line, lines)
    except csv.Error as error:
        torn = _torn(table.dialect, line, lines)
        return Rejection(place, "broken_csv", str(error), _text(torn))
    if not any(cells):
        return None
    try:
        return SourceRow(place, by_column(cells, table.columns))
    except RowError as error:
        if len(taken) > 2 and all(_stands_alone(table, other) for other in taken[1:-1]):
            lines.give_back(taken[1:])
            return Rejection(place, "broken_csv", "a quote is not closed", _text(taken[:1]))
        return Rejection(place, error.code, error.detail, _text(taken))


def _record(dialect: Dialect, line: Line, lines: Lines) -> tuple[list[str], list[Line]]:
    """The cells of the record that begins with `line`, and its lines; csv.Error gives them back."""
    if dialect.quotes(line.text) % 2 == 0 and not dialect.escape:
        return dialect.record((line.text,)), [line]
    taken: list[Line] = []
    try:
        return dialect.record(_fed(line, lines, taken)), [line, *taken]
    except csv.Error:
        lines.give_back(taken)
        raise


def _fed(first: Line, lines: Lines, taken: list[Line]) -> Iterator[str]:
    yield first.text + "\n"
    size = 0
    for line in lines:
        taken.append(line)
        size += len(line.text)
        if not line.whole or size > _LONGEST_TORN or len(taken) > _FARTHEST:
            return
        yield line.text + "\n"


def _torn(dialect: Dialect, first: Line, lines: Lines) -> list[Line]:
    """The lines that a record with broken quotes takes: mostly the first.

    An odd quote further down that opens no cell is the end of its text, and the lines between are
    text too, though some of them may look like records.
    """
    if dialect.quotes(first.text) % 2 == 0:
        return [first]
    taken: list[Line] = []
    opening = re.compile(rf"(?:^|{re.escape(dialect.delimiter)}){re.escape(dialect.quote or '')}")
    for line in lines:
        taken.append(line)
        if not line.whole or len(taken) > _STRAY:
            break
        if dialect.quotes(line.text) % 2:
            if opening.search(line.text):
                break
            return [first, *taken]
    lines.give_back(taken)
    return [first]


def _stands_alone(table: Table, line: Line) -> bool:
    if table.dialect.quotes(line.text) % 2:
        return False
    try:
        by_column(table.dialect.record((line.text,)), table.columns)
    except (csv.Error, RowError):
        return False
    return True


def _text(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines).rstrip("\r\n")


def by_column(cells: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """The cells by their column's name; `RowError` when there are too few or too many."""
    extra = cells[len(columns) :]
    if len(cells) < len(columns) or any(extra):
        raise RowError("wrong_column_count", f"{len(cells)} cells under a header of {len(columns)}")
    return {name: cell for name, cell in zip(columns, cells, strict=False) if name or cell}
