"""Data files to rows: JSONL, JSON and CSV, each row with the file and line it stands on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from palmswift.data import csv_rows, json_rows
from palmswift.data.encodings import Text, read_text
from palmswift.data.row import Rejection, RowError, SourceRow, printable
from palmswift.errors import InputError, Problem
from palmswift.recipes.source import shown

Format = Literal["json", "jsonl", "csv"]

_BY_SUFFIX: dict[str, Format] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}


class DataFile(NamedTuple):
    """A file that was read: how, and its rows in the order in which they stand."""

    source: str
    format: Format
    encoding: str
    rows: list[SourceRow | Rejection]


def read_files(paths: Iterable[Path]) -> list[DataFile]:
    """Every file's rows; InputError names all the files that cannot be used at once."""
    files: list[DataFile] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            files.append(read_file(path))
        except InputError as error:
            problems += error.problems
    if problems:
        count = len(problems)
        raise InputError(f"{count} data file{'s' * (count > 1)} cannot be used", problems)
    return files


def read_file(path: Path) -> DataFile:
    """The rows of one file; a broken row is a `Rejection` among them.

    InputError: the file is missing, empty, binary, of no known format, or has no rows.
    """
    source = printable(shown(path), limit=4096)
    named = _BY_SUFFIX.get(path.suffix.lower())
    text = read_text(path)
    if named is None:
        known = ", ".join(_BY_SUFFIX)
        raise _refusal(source, f"`{path.suffix}` is no known kind of data file", f"one of {known}")
    form: Format = "csv" if named == "csv" else _json_form(text)
    rows = _rows(text, form, source)
    if not rows:
        raise _refusal(source, "the file holds no rows", "give a file with rows")
    return DataFile(source, form, text.encoding, rows)


def _json_form(text: Text) -> Format:
    """Whether JSON text is one document or one a line, whatever the file is called.

    A line that is a whole list (`["a", "b"]`) belongs to JSONL; `[` alone, or a list that goes on
    below the line, opens an array, and so does an object that wraps one. An object that opens on
    a line of its own is printed over several lines.
    """
    start = text.text.lstrip()
    first, _, rest = start.partition("\n")
    if not start.startswith("["):
        return "json" if json_rows.wraps_array(start) or first.strip() == "{" else "jsonl"
    whole_line = json_rows.is_whole(first)
    return "jsonl" if whole_line and rest.lstrip().startswith("[") else "json"


def _rows(text: Text, form: Format, source: str) -> list[SourceRow | Rejection]:
    if form == "json":
        return list(json_rows.array(text.text, source))
    if form == "jsonl":
        return list(json_rows.lines(text.text, source))
    try:
        table = csv_rows.open_table(text.text)
    except RowError as error:
        raise _refusal(f"{source}:1", error.detail, "mend the header line") from None
    return list(csv_rows.records(table, source))


def _refusal(where: str, what: str, remedy: str) -> InputError:
    return InputError("a data file cannot be used", [Problem(what, where, remedy)])
