"""The run's journal: numbered without gaps, whatever kills its writers, wherever they stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.launchers.events import (
    CheckpointEvent,
    EventJournal,
    NoteEvent,
    StepEvent,
    parse_event,
    read_events,
)


def _numbers(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_journal_goes_on_where_the_one_before_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(3):
        journal = EventJournal(path)
        journal.note("a", "first")
        journal.note("a", "second")
    assert _numbers(path) == [1, 2, 3, 4, 5, 6]


@given(
    launches=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 200), st.binary(max_size=40)), max_size=6
    )
)
def test_whatever_a_writer_that_was_killed_left_the_numbers_have_no_gaps(
    tmp_path_factory: pytest.TempPathFactory, launches: list[tuple[int, int, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "events.jsonl"
    for events, cut, torn in launches:
        journal = EventJournal(path)
        for number in range(events):
            journal.add(StepEvent(step=number, max_steps=9, loss=float("nan")))
        if path.exists():
            # The power goes: the end of the file is missing, or is something else.
            os.truncate(path, max(0, path.stat().st_size - cut))
            with path.open("ab") as stream:
                stream.write(torn.replace(b"\n", b""))
    EventJournal(path).note("the", "last")
    assert _numbers(path) == list(range(1, len(_numbers(path)) + 1))
    assert [event.n for event in read_events(path)] == _numbers(path)


def test_a_line_that_was_lost_in_the_middle_is_no_reason_to_number_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventJournal(path).note("a", "b")
    with path.open("ab") as stream:
        stream.write(b'{"n":2,"kind":"of a later palmswift"}\n')
    EventJournal(path).note("a", "c")
    assert _numbers(path) == [1, 2, 3]
    assert [event.n for event in read_events(path)] == [1, 3]


def test_what_a_full_disk_refused_is_written_in_order_once_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "events.jsonl"
    journal = EventJournal(path)
    journal.note("a", "1")
    path.rename(folder / "kept")
    path.mkdir()  # nothing can be written there
    journal.note("a", "2")
    journal.note("a", "3")
    path.rmdir()
    (folder / "kept").rename(path)
    journal.note("a", "4")
    assert _numbers(path) == [1, 2, 3, 4]
    assert [event.text for event in read_events(path) if isinstance(event, NoteEvent)] == [
        *("1", "2", "3", "4")
    ]


WRITER = """
import sys
from pathlib import Path
from palmswift.launchers.events import EventJournal
journal = EventJournal(Path(sys.argv[1]))
while True:
    journal.note("x", "y" * 1000)
    print("written", flush=True)
"""


def test_a_writer_that_is_killed_while_it_writes_loses_nothing_that_it_had_written(
    tmp_path: Path,
) -> None:
    path, told = tmp_path / "events.jsonl", 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            for _ in range(50):
                told += writer.stdout.readline() == b"written\n"
            writer.send_signal(signal.SIGKILL)
            told += writer.stdout.read().count(b"written\n")
    EventJournal(path).note("the", "last")
    numbers = _numbers(path)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > told


@pytest.mark.parametrize(
    "make",
    [
        lambda: StepEvent(step=1, max_steps=2, loss=float("inf"), metrics={"r": float("nan")}),
        lambda: CheckpointEvent(step=3, name="checkpoint-3", seconds=0.5, at=17),
        lambda: NoteEvent(topic="再试", text="批次 4 → 2\n"),
    ],
)
def test_what_is_read_is_what_was_written_in_json_that_any_reader_takes(
    tmp_path: Path, make: Callable[[], StepEvent]
) -> None:
    path = tmp_path / "events.jsonl"
    EventJournal(path).add(make())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    [event] = read_events(path)
    assert repr(event.model_copy(update={"n": 0, "time": ""})) == repr(make())


@given(st.binary(max_size=80))
def test_any_line_is_an_event_or_none(line: bytes) -> None:
    assert parse_event(line) is None
