"""Rows of CSV; cells stay the text that was typed, a broken record costs its first line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from palmswift.data.row import Place, Rejection, RowError, SourceRow

_LONGEST_CELL = 1 << 20
"""Characters; a longer cell is an unclosed quote that swallowed the rows after it."""

_DELIMITERS = ",;\t"


class Header(NamedTuple):
    """The columns of a CSV file, and the line that the first record begins on."""

    columns: tuple[str, ...]
    next_line: int


class Table(NamedTuple):
    """A CSV file's physical lines, what parts its cells, and its header."""

    lines: list[str]
    delimiter: str
    header: Header


def open_table(text: str) -> Table:
    """The table that CSV text is.

    Raises `RowError` (code `broken_csv`) when the header cannot be read or names a column twice.
    """
    csv.field_size_limit(_LONGEST_CELL)  # process-wide; the module has no limit of a reader's own
    physical = list(io.StringIO(text, newline=""))
    first = next((number for number, line in enumerate(physical) if line.strip()), 0)
    counts = Counter(character for character in physical[first] if character in _DELIMITERS)
    delimiter = max(_DELIMITERS, key=lambda character: counts[character])
    cells, used = _record(physical, first, delimiter)
    columns = tuple(cell.strip() for cell in cells)
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise RowError("broken_csv", f"the header names `{twice[0]}` twice")
    return Table(physical, delimiter, Header(columns, first + used))


def records(table: Table, source: str) -> Iterator[SourceRow | Rejection]:
    """The rows below the header; lines without any character are passed over."""
    position = table.header.next_line
    number = 1
    while position < len(table.lines):
        if not table.lines[position].strip("\r\n"):
            position += 1
            continue
        place = Place(source, position + 1, number)
        used = 1
        try:
            cells, used = _record(table.lines, position, table.delimiter)
            yield SourceRow(place, _by_column(cells, table.header.columns))
        except RowError as error:
            text = "".join(table.lines[position : position + used]).rstrip("\r\n")
            yield Rejection(place, error.code, error.detail, text)
        position += used
        number += 1


def _record(physical: list[str], start: int, delimiter: str) -> tuple[list[str], int]:
    """The cells of the record that begins at line index `start`, and how many lines it takes."""
    following = (physical[index] for index in range(start, len(physical)))
    reader = csv.reader(following, delimiter=delimiter, strict=True)
    try:
        cells = next(reader)
    except csv.Error as error:
        raise RowError("broken_csv", str(error)) from None
    return cells, reader.line_num


def _by_column(cells: list[str], columns: tuple[str, ...]) -> dict[str, str]:
    extra = cells[len(columns) :]
    if len(cells) < len(columns) or any(extra):
        raise RowError("wrong_column_count", f"{len(cells)} cells under a header of {len(columns)}")
    return {name: cell for name, cell in zip(columns, cells, strict=False) if name or cell}
