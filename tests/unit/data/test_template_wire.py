from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palmswift.data.template_wire import ChunkFolder
from palmswift.data.verdict import Part, Verdict

rows = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_rows_arrive_as_they_were_sent(tmp_path: Path, sent: list[dict[str, str]]) -> None:
    folder = ChunkFolder(tmp_path)
    folder.put_rows(0, sent)
    assert folder.rows(0) == sent


def test_verdicts_arrive_as_they_were_given_and_the_second_answer_counts(tmp_path: Path) -> None:
    folder = ChunkFolder(tmp_path)
    verdicts = [
        Verdict(3, 1),
        Verdict(9, 0, "no_eos", "切"),
        Verdict(4, 2, "", "", (Part(1, 3, 4, 2),)),
    ]
    folder.put_answer(0, verdicts[:1])
    folder.put_answer(0, verdicts)
    folder.put_answer(1, [])
    assert list(folder.answers(2)) == [verdicts, []]


def test_what_is_not_there_yet_is_told(tmp_path: Path) -> None:
    folder = ChunkFolder(tmp_path)
    assert folder.rows(0) is None and folder.end is None and not folder.has_answer(0)
    with pytest.raises(FileNotFoundError):
        list(folder.answers(1))
    folder.put_end(7)
    assert folder.end == 7
