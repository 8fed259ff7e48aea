from __future__ import annotations

from pathlib import Path

import pytest

from palmswift.data.policy import CHANGES, CHECKS
from palmswift.data.policy_table import tables, with_tables

README = Path(__file__).parents[3] / "data" / "README.md"


def test_the_tables_in_the_readme_are_the_ones_that_would_be_written() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_tables(text), "run: python -m palmswift.data.policy_table"


def test_every_check_and_change_has_its_line() -> None:
    lines = tables().splitlines()
    for name in (*CHECKS, *CHANGES):
        assert sum(line.startswith(f"| `{name}` |") for line in lines) == 1
    for line in lines[: len(CHECKS) + 2]:
        assert line.replace("\\|", "").count("|") == 5


def test_a_readme_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks"):
        with_tables("# data")
