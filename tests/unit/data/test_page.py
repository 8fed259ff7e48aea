from __future__ import annotations

import re
from pathlib import Path

import pytest
from support_data import SPEC, count_characters, pair, write_rows

from palmswift.data.sanitize import sanitize
from palmswift.recipes.recipe import DataSettings


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("palmswift.data.gate.judge", count_characters)
    rows = [pair(f"q{number}", "a") for number in range(9)]
    rows += [pair("long", "x" * 300), {"role": 1, "<script>alert(1)</script>": 2}]
    data = write_rows(tmp_path / "data.jsonl", rows)
    sanitize(
        [data],
        [],
        tmp_path / "out",
        settings=DataSettings(),
        template=SPEC,
        log=tmp_path / "log",
    )
    return (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_what_the_rows_hold_is_escaped(page: str) -> None:
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    assert not re.search(r"(src|href)=|url\(|@import|https?://", page)


def test_the_page_has_both_languages_and_the_limit(page: str) -> None:
    assert page.count('lang="zh"') > 20
    assert page.count('<span lang="en">') == page.count('<span lang="zh">')
    assert "max_length 200" in page and "over_length" in page
