"""Data files to rows, as a stream: each row with the file and line it stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from palmswift.data import csv_rows, excel, json_rows, tables, text_rows
from palmswift.data.compressed import Meter, head, refusal
from palmswift.data.encodings import TextSource
from palmswift.data.folders import find, suffix_of
from palmswift.data.json_document import Document, is_document, looks_like_json
from palmswift.data.lines import Lines
from palmswift.data.row import Rejection, RowError, SourceRow, printable
from palmswift.errors import InputError
from palmswift.recipes.source import shown

Format = Literal["json", "jsonl", "csv", "text", "parquet", "excel", "arrow"]
Rows = Iterator[SourceRow | Rejection]

KNOWN: dict[str, Format] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".parquet": "parquet",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""Suffix to format; each may be followed by .gz or .zst. What is binary is known by its bytes."""

_INSTEAD = {
    ".xls": "save it as .xlsx or CSV (UTF-8)",
    ".ods": "save it as .xlsx or CSV (UTF-8)",
    ".numbers": "export it as .xlsx or CSV (UTF-8)",
    ".zip": "unpack it and give the folder",
    ".tar": "unpack it and give the folder",
    ".pdf": "save its text as .txt, or rows as CSV or JSONL",
    ".docx": "save its text as .txt, or rows as CSV or JSONL",
    ".yaml": "save the rows as JSONL",
    ".xml": "save the rows as JSONL",
    ".pkl": "save the rows as JSONL",
}

_SAMPLE = 1 << 16


class DataFile:
    """A file (or a sheet of a workbook) of which no more than a sample has been read yet."""

    def __init__(
        self,
        path: Path,
        form: Format,
        read: Callable[[Meter, list[str]], Rows],
        *,
        sheet: str = "",
        text: TextSource | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """`read` gives the rows; it moves the meter, and adds to the list what it left out."""
        self.path = path
        """On the disk; that of the workbook for a sheet."""
        self.source = source_of(path, sheet)
        self.format: Format = form
        self.size = path.stat().st_size
        """Bytes on the disk."""
        self._read = read
        self._text = text
        self._meter = text.meter if text else Meter()
        self._told = list(notes)
        self._found: list[str] = []

    @property
    def encoding(self) -> str:
        """The codec's name; `utf-8` until the first character that is not ASCII is read."""
        return self._text.encoding if self._text else "utf-8"

    @property
    def position(self) -> int:
        """How many of the `size` bytes have been read."""
        return self._meter.position

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or assumed, a sentence each; complete once the rows are read."""
        return (*self._told, *self._found)

    def rows(self) -> Rows:
        """The rows in the order in which they stand, numbered from 1; may be called again.

        InputError: the file turns out to break off (an archive, a table).
        """
        self._found = []
        return self._read(self._meter, self._found)

    def tell(self, notes: Sequence[str]) -> None:
        """Put sentences before the file's own notes."""
        self._told[:0] = notes


def open_files(paths: Iterable[Path | str]) -> list[DataFile]:
    """The files that are named, that lie in folders or match patterns; a workbook's sheets each.

    InputError names all the files that cannot be used at once: missing, empty, binary, of no known
    format, without rows.
    """
    found = find(paths, tuple(KNOWN))
    files: list[DataFile] = []
    problems = list(found.problems)
    for path in found.files:
        try:
            opened = _open(path)
        except InputError as error:
            problems += error.problems
            continue
        opened[0].tell(found.notes.get(path, []))
        files += opened
    if problems:
        count = len(problems)
        raise InputError(f"{count} data file{'s' * (count > 1)} cannot be used", problems)
    return files


def read_rows(path: Path) -> Rows:
    """The rows of one file (or folder) that is read for its rows alone; InputError as above."""
    for file in open_files([path]):
        yield from file.rows()


def source_of(path: Path, sheet: str = "") -> str:
    """How a file, or a sheet of it, is called in reports: as a user would type it here."""
    name = f"{shown(path)}#{sheet}" if sheet else shown(path)
    return printable(name, limit=4096)


def _open(path: Path) -> list[DataFile]:
    """The file, or the sheets of the workbook; InputError when it cannot be used."""
    magic = head(path, 8)
    named = KNOWN.get(suffix_of(path))
    if magic.startswith(excel.ZIP) and excel.is_workbook(path):
        return _sheets(path)
    if magic.startswith(tables.PARQUET):
        files = [_table(path, "parquet", tables.parquet_rows)]
    elif magic.startswith(tables.ARROW_FILE) or (named == "arrow" and magic):
        files = [_table(path, "arrow", tables.arrow_rows)]
    else:
        files = [_text(path, named)]
    first = files[0].rows()
    if next(first, None) is None:
        raise refusal(files[0].source, "the file holds no rows", "give a file with rows")
    return files


def _table(path: Path, form: Format, read: Callable[[Path, str, Meter], Rows]) -> DataFile:
    return DataFile(path, form, lambda meter, _: read(path, source_of(path), meter))


def _sheets(path: Path) -> list[DataFile]:
    workbook = excel.open_workbook(path)
    several = len(workbook.sheets) > 1
    files = [_sheet(path, sheet, sheet.name if several else "") for sheet in workbook.sheets]
    files[0].tell([f"{source_of(path)}: {sentence}" for sentence in workbook.left_out])
    return files


def _sheet(path: Path, sheet: excel.Sheet, name: str) -> DataFile:
    source = source_of(path, name)
    return DataFile(
        path, "excel", lambda meter, _: excel.rows(path, source, sheet, meter), sheet=name
    )


def _text(path: Path, named: Format | None) -> DataFile:
    text = TextSource(path)
    sample = _sample(text)
    if named is None:
        suffix = suffix_of(path)
        remedy = _INSTEAD.get(suffix, f"one of {', '.join(KNOWN)}, each also .gz or .zst")
        raise refusal(str(path), f"`{suffix}` is no known kind of data file", remedy)
    if named in ("parquet", "excel", "arrow"):
        what = f"the file is called `{suffix_of(path)}` but is none"
        raise refusal(str(path), what, "name it after what it is, or copy it again")
    if named == "csv":
        return _csv(path, text, sample)
    if named == "text" and not looks_like_json(sample):
        return _plain_text(path, text, sample)
    return _json(path, text, sample, named)


def _json(path: Path, text: TextSource, sample: str, named: Format) -> DataFile:
    source = source_of(path)
    if is_document(sample, named_lines=named == "jsonl"):
        return DataFile(
            path,
            "json",
            lambda _, notes: Document(text.blocks(), source, notes).rows(),
            text=text,
        )
    array = named == "json" and sample.lstrip("\ufeff \t\r\n").startswith("[")
    return DataFile(
        path,
        "json" if array else "jsonl",
        lambda *_: json_rows.rows(Lines(text.blocks()), source),
        text=text,
    )


def _plain_text(path: Path, text: TextSource, sample: str) -> DataFile:
    source = source_of(path)
    division = text_rows.division_of(sample)
    return DataFile(
        path,
        "text",
        lambda *_: text_rows.rows(Lines(text.blocks()), source, division),
        text=text,
        notes=[f"{source}: {text_rows.NOTES[division]}"],
    )


def _csv(path: Path, text: TextSource, sample: str) -> DataFile:
    source = source_of(path)
    try:
        table = csv_rows.open_table(sample)
    except RowError as error:
        raise refusal(f"{source}:1", error.detail, "mend the header line") from None
    return DataFile(
        path, "csv", lambda *_: csv_rows.rows(Lines(text.blocks()), source, table), text=text
    )


def _sample(text: TextSource) -> str:
    """The beginning of the text, from its first line that is not blank; InputError if none."""
    for block in text.blocks():
        if written := block.lstrip("\ufeff \t\r\n"):
            begin = block.rfind("\n", 0, len(block) - len(written)) + 1
            return block[begin : begin + _SAMPLE]
    raise refusal(str(text.path), "the file is empty", "give a file with rows")
