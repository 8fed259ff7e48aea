from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_eval import arithmetic, prediction

from palmswift.errors import InputError
from palmswift.eval.journal import Journal, read_journal

ROWS = [prediction(case, f"答{n}") for n, case in enumerate(arithmetic(4))]


def written(path: Path) -> bytes:
    with Journal(path) as journal:
        for row in ROWS:
            journal.append(row)
    return path.read_bytes()


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    written(tmp_path / "j")
    assert list(read_journal(tmp_path / "j")) == ROWS
    assert list(read_journal(tmp_path / "missing")) == []


@given(st.integers(0, 10_000))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_journal_cut_at_any_byte_keeps_every_whole_row_and_takes_new_ones(
    tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    data = written(path)
    kept = data[: cut % (len(data) + 1)]
    path.write_bytes(kept)
    lines = kept.split(b"\n")
    ended_whole = [line for line in data.split(b"\n") if line][len(lines) - 1 :][:1] == lines[-1:]
    whole = len(lines) - 1 + (1 if lines[-1] and ended_whole else 0)
    with Journal(path) as journal:
        journal.append(ROWS[0])
    assert list(read_journal(path)) == [*ROWS[:whole], ROWS[0]]


def test_a_foreign_line_in_the_middle_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "j"
    data = written(path)
    first, rest = data.split(b"\n", 1)
    path.write_bytes(first + b"\n{}\n" + rest)
    with pytest.raises(InputError, match=f"{path}:2"):
        list(read_journal(path))


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path), pytest.raises(InputError, match="another process"), Journal(path):
        pass


def test_rows_set_aside_leave_the_others_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    base = prediction(arithmetic(1)[0], "1", endpoint="base")
    written(path)
    with Journal(path) as journal:
        journal.append(base)
        aside = journal.set_aside(lambda row: row.endpoint == "tuned")
        assert aside is not None
        assert list(read_journal(path)) == [base]
        assert list(read_journal(aside.path)) == [*ROWS, base]
        assert journal.set_aside(lambda row: row.endpoint == "tuned") is None
        with pytest.raises(InputError, match="another process"), Journal(path):
            pass
        journal.append(ROWS[0])
    assert list(read_journal(path)) == [base, ROWS[0]]
