"""The real lengths of the rows, as a data report tells them, in place of the worst case."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.errors import InputError
from palmswift.files import is_file
from palmswift.paths import runs_dir, user_path


class Lengths(BaseModel):
    """Tokens of the rows that are trained on, by ms-swift's own template."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    longest: int
    most_supervised: int
    """Tokens with a loss; perhaps of another row than the longest."""
    p99: int
    """Length that 99 of 100 rows do not exceed."""


class _Counts(BaseModel):
    p99: int
    max: int


class _Tokens(BaseModel):
    tokens: _Counts
    supervised: _Counts


class _Report(BaseModel):
    """What is read of data/report.json; the rest of it is the data room's."""

    tokens: _Tokens | None


def read_lengths(name: str) -> Lengths:
    """The lengths in a data report, a folder with one, or a run's. InputError: there are none."""
    path = _report_file(name)
    try:
        report = _Report.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a data report: {error}") from error
    counts = report.tokens
    if counts is None:
        raise InputError(f"{path} counts no tokens: no row was kept", remedy="data/sanitize.py")
    return Lengths(
        longest=counts.tokens.max, most_supervised=counts.supervised.max, p99=counts.tokens.p99
    )


def _report_file(name: str) -> Path:
    given = user_path(name)
    for root in (given, runs_dir() / name):
        for path in (root, root / "report.json", root / "data" / "report.json"):
            if is_file(path):
                return path
    raise InputError(
        f"there is no data report in {name}",
        remedy="--data-report runs/NAME, or a report.json that data/sanitize.py wrote",
    )
