"""Rows of Excel workbooks: a visible sheet is a table, its cells the text that they show."""

from __future__ import annotations

import itertools
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.data.compressed import Meter, plain_file, refusal
from palmswift.data.csv_rows import by_column, check_columns
from palmswift.data.excel_cells import shown
from palmswift.data.row import Place, Rejection, RowError, SourceRow

ZIP = b"PK\x03\x04"


class Sheet(NamedTuple):
    """A sheet with a header: the number of its line, and the columns' names."""

    name: str
    header_line: int
    columns: tuple[str, ...]


class Workbook(NamedTuple):
    """The sheets that hold rows, and a sentence on each one that was left out."""

    sheets: list[Sheet]
    left_out: list[str]


class _Line(NamedTuple):
    number: int
    cells: list[str]
    broken: str
    """What is wrong with a cell; empty when all can be read."""


def is_workbook(path: Path) -> bool:
    """Whether a zip archive is a workbook."""
    with plain_file(path) as plain:
        try:
            with zipfile.ZipFile(plain) as archive:
                return "xl/workbook.xml" in archive.namelist()
        except zipfile.BadZipFile:
            return False


def open_workbook(path: Path) -> Workbook:
    """The sheets of a workbook; InputError when none of them holds rows."""
    sheets: list[Sheet] = []
    left_out: list[str] = []
    with _opened(path) as (values, _):
        for sheet in values.worksheets:
            if sheet.sheet_state != "visible":
                left_out.append(f"the sheet `{sheet.title}` is hidden and was not read")
                continue
            lines = _lines(sheet, None)
            header = next(lines, None)
            if header is None:
                continue
            columns = tuple(cell.strip() for cell in header.cells)
            try:
                check_columns(columns)
            except RowError as error:
                left_out.append(f"the sheet `{sheet.title}` was not read: {error.detail}")
                continue
            if next(lines, None) is None:
                left_out.append(f"the sheet `{sheet.title}` has no rows under its header")
            else:
                sheets.append(Sheet(sheet.title, header.number, columns))
    if not sheets:
        what = "; ".join(left_out) or "the workbook is empty"
        raise refusal(str(path), what, "the first line names the columns, rows stand below")
    return Workbook(sheets, left_out)


def rows(path: Path, source: str, sheet: Sheet, meter: Meter) -> Iterator[SourceRow | Rejection]:
    """The rows of a sheet; their lines are the numbers that Excel shows beside them."""
    size = path.stat().st_size
    with _opened(path) as (values, formulas):
        written = formulas[sheet.name] if formulas else None
        lines = _lines(values[sheet.name], written)
        below = (line for line in lines if line.number > sheet.header_line)
        for number, line in enumerate(below, 1):
            place = Place(source, line.number, number)
            cells = line.cells + [""] * (len(sheet.columns) - len(line.cells))
            if line.broken:
                row = dict(zip(sheet.columns, cells, strict=False))
                yield Rejection(place, "broken_cell", line.broken, row)
                continue
            try:
                yield SourceRow(place, by_column(cells, sheet.columns))
            except RowError as error:
                yield Rejection(place, error.code, error.detail, cells)
        meter.position = size


def _lines(values: Any, formulas: Any | None) -> Iterator[_Line]:
    """The lines of a sheet that have a cell with text in it."""
    written = formulas.iter_rows() if formulas else itertools.repeat(())
    for number, (line, originals) in enumerate(zip(values.iter_rows(), written, strict=False), 1):
        cells = [
            cell.value
            if isinstance(cell.value, str)
            else ""
            if cell.value is None
            else shown(cell.value, cell.number_format)
            for cell in line
        ]
        broken = ""
        for index, cell in enumerate(line):
            if cell.data_type == "e":
                broken = f"cell {index + 1} is {cell.value}"
        for index, cell in enumerate(originals):
            if cell.data_type == "f" and (index >= len(cells) or line[index].value is None):
                broken = f"cell {index + 1} is the formula {cell.value} without a result: open "
                broken += "the workbook in Excel or LibreOffice and save it"
        if any(cells) or broken:
            yield _Line(number, cells, broken)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any | None]]:
    """The workbook with the results of its formulas, and once more with the formulas if any."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with plain_file(path) as plain, plain.open("rb") as first, plain.open("rb") as second:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of decorations that are not read
                values = openpyxl.load_workbook(first, read_only=True, data_only=True)
                formulas = None
                if _has_formulas(plain):
                    formulas = openpyxl.load_workbook(second, read_only=True)
            for sheet in [*values.worksheets, *(formulas.worksheets if formulas else ())]:
                sheet.reset_dimensions()  # some programs write wrong ones
            yield values, formulas
            values.close()
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, SyntaxError) as error:
        what = f"the workbook cannot be read: {error}"
        raise refusal(str(path), what, "save it again as .xlsx, or as CSV (UTF-8)") from None


def _has_formulas(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/sheet")]
        return any(_contains(archive, name, (b"<f>", b"<f ")) for name in sheets)


def _contains(archive: zipfile.ZipFile, name: str, words: tuple[bytes, ...]) -> bool:
    tail = b""
    with archive.open(name) as stream:
        while data := stream.read(1 << 20):
            if any(word in tail + data for word in words):
                return True
            tail = data[-2:]
    return False
