from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support_eval import arithmetic, prediction

from palmswift.errors import InputError
from palmswift.eval.asking import journal as module
from palmswift.eval.asking.answers import Answers
from palmswift.eval.asking.journal import Journal, RequestError, line_of, read_journal

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


def test_what_was_recorded_of_a_request_cannot_be_changed() -> None:
    error = RequestError(kind="status", status=500, message="HTTP 500")
    for row, field in ((ROWS[0], "content"), (error, "message")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(row, field, "other")


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


class FullDisk:
    """The operating system of the journal's module, on whose disk so many bytes fit."""

    def __init__(self, room: int, *, broken: bool = False) -> None:
        self.room = room
        self.broken = broken

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, file: int, data: bytes) -> int:
        """As much as fits, then ENOSPC."""
        if not self.room:
            raise OSError(errno.ENOSPC, "no space left on device")
        count = os.write(file, data[: self.room])
        self.room -= count
        return count

    def ftruncate(self, file: int, size: int) -> None:
        """Cut a file, if the disk is not broken altogether."""
        if self.broken:
            raise OSError(errno.EIO, "input/output error")
        os.ftruncate(file, size)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_disk_that_is_full_at_any_byte_leaves_whole_rows_and_the_journal_goes_on(
    tmp_path: Path, room: int, broken: bool
) -> None:
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    size = sum(len(line_of(row)) for row in ROWS)
    disk = FullDisk(room % size, broken=broken)
    kept = 0
    with Journal(path) as journal:
        with patch.object(module, "os", disk), pytest.raises(OSError, match="no space"):
            for row in ROWS:
                journal.append(row)
                kept += 1
        if not broken:
            journal.append(ROWS[-1])
    expected = [*ROWS[:kept], *([] if broken else [ROWS[-1]])]
    if broken and len(list(read_journal(path))) > kept:
        expected = ROWS[: kept + 1]  # all of it fitted but the newline
    assert list(read_journal(path)) == expected
    with Journal(path) as journal:
        journal.append(ROWS[0])
    assert list(read_journal(path)) == [*expected, ROWS[0]]


def test_rows_reach_the_disk_a_second_later_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    now = [100.0]
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Journal(tmp_path / "j") as journal:
        journal.append(ROWS[0])
        now[0] += 0.9
        journal.append(ROWS[1])
        assert len(synced) == 0
        now[0] += 0.2
        journal.append(ROWS[2])
        assert len(synced) == 1
        journal.append(ROWS[3])
        assert len(synced) == 1
    assert len(synced) == 2


def test_a_last_row_longer_than_a_block_is_cut_or_ended_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "j"
    long = ROWS[0].model_copy(update={"content": "长" * 100_000})
    for cut, kept in ((1, [*ROWS, long]), (2, ROWS)):
        path.unlink(missing_ok=True)
        data = written(path) + line_of(long)
        path.write_bytes(data[:-cut])
        with Journal(path):
            pass
        assert list(read_journal(path)) == kept
        assert path.read_bytes().endswith(b"\n")


def test_a_journal_makes_its_folders_and_knows_its_size_however_its_last_row_ended(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a" / "b" / "j"
    data = written(path)
    for cut in (0, 1, 2):
        path.write_bytes(data[: len(data) - cut])
        with Journal(path) as journal:
            assert journal.size == path.stat().st_size


def test_only_rows_after_a_place_are_set_aside_when_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append(ROWS[0])
        since = journal.size
        for row in ROWS[1:]:
            journal.append(row)
        aside = journal.set_aside(lambda row: row.case != ROWS[2].case, since=since)
        assert aside is not None
        assert (aside.rows, list(read_journal(path))) == (2, [ROWS[0], ROWS[2]])
        assert journal.size == path.stat().st_size


def test_what_cannot_be_set_aside_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path)
    with Journal(path) as journal:
        with (
            patch.object(os, "link", side_effect=OSError(errno.EPERM, "not permitted")),
            pytest.raises(OSError, match="not permitted"),
        ):
            journal.set_aside(lambda row: True)
        journal.append(ROWS[0])
    assert list(read_journal(path)) == [*ROWS, ROWS[0]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["j"]


def test_a_journal_that_cannot_be_mended_is_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"{")
    with (
        patch.object(os, "ftruncate", side_effect=OSError(errno.EIO, "broken")),
        pytest.raises(OSError, match="broken"),
        Journal(path),
    ):
        pass
    with Journal(path) as journal:
        journal.append(ROWS[0])
    assert list(read_journal(path)) == [ROWS[0]]


def test_the_row_of_a_request_is_found_by_its_key_an_answer_before_any_error(
    tmp_path: Path,
) -> None:
    path = tmp_path / "j"
    cases = arithmetic(4)
    error = RequestError(kind="status", status=500, message="HTTP 500")
    failed = [prediction(case, None, error=error) for case in cases]
    later = prediction(cases[0], "later " + "长" * 20_000)
    unknown = prediction(cases[3], "x", repeat=1)
    with Journal(path) as journal:
        for row in (failed[0], ROWS[0], failed[1], ROWS[1], failed[1], failed[2], later):
            journal.append(row)
    with path.open("ab") as stream:
        stream.write(b'{"endpoint": "tor')
    answers = Answers(path)
    try:
        assert answers.get(ROWS[0].key) == later
        assert answers.get(ROWS[1].key) == ROWS[1]
        assert answers.get(ROWS[2].key) == failed[2]
        assert [row.key in answers for row in ROWS] == [True, True, False, False]
        assert answers.get(unknown.key) is None
        assert answers.get(ROWS[0].key._replace(fingerprint="other")) is None
    finally:
        answers.close()


def test_an_index_of_nothing_finds_nothing_and_a_foreign_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.touch()
    answers = Answers(path)
    assert ROWS[0].key not in answers
    answers.close()
    path.write_bytes(b"{}\n")
    with pytest.raises(InputError, match="not a row of this journal"):
        Answers(path)
