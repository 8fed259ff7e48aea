"""What the READMEs say of serving is what the records say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving.servers import _phases
from benchmarks.serving.table import BEGIN, END, READMES, written
from palmswift.files import with_part


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_the_committed_part_is_the_one_that_the_records_give(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    again = with_part(text, BEGIN, END, written())
    assert text == again, "run python -m benchmarks.serving.table"


def test_phases_end_where_the_next_begins_and_add_up_to_the_whole() -> None:
    phases = _phases({"importing": 2.0, "first completion": 9.5}, 10.0)
    assert phases == {"starting": 2.0, "importing": 7.5, "first completion": 0.5, "all": 10.0}
