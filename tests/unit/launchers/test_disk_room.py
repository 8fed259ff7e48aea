"""A run's record is written on a disk that is really full, and a full disk is noticed as one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support_disk import small_disk
from support_runs import make_run

from palmswift.launchers.disk_room import RESERVED_BYTES, Reserve, Room
from palmswift.launchers.verdict import Expected, judge

FAILING = """
import sys
from pathlib import Path
from palmswift.errors import ChildError
from palmswift.launchers.disk_room import Room
from palmswift.launchers.run_folder import RunFolder

run = RunFolder(Path(sys.argv[1]))
room = Room(run.path)
room.look()
assert not room.ran_out
try:
    with run.room_kept(), run.stage("train") as facts:
        facts["steps"] = 8
        try:
            with open(run.path / "filler", "wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError:
            room.look()
        assert room.ran_out
        raise ChildError("the disk is full")
except ChildError as error:
    print(error.summary)
"""


def test_how_a_run_ended_is_written_where_nothing_else_fits(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m") as disk:
        run = make_run(tmp_path / "made").path
        disk.shell('cp -a "$1" run', run)
        words = disk.words(sys.executable, "-c", FAILING, disk.folder / "run")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "the disk is full\n"), done.stderr
        state = json.loads(disk.shell("cat run/run.json"))
        events = [json.loads(line) for line in disk.shell("cat run/events.jsonl").splitlines()]
        assert "filler" in disk.shell("ls run")
    stage = state["stages"]["train"]
    assert (stage["state"], stage["facts"], stage["error"]) == (
        "failed",
        {"steps": 8},
        "the disk is full",
    )
    assert [event["state"] for event in events] == ["running", "failed"]


def test_the_room_is_given_back_when_the_work_is_over(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = sorted(run.path.iterdir())
    with run.room_kept():
        [reserve] = set(run.path.iterdir()) - set(before)
        assert reserve.stat().st_size == RESERVED_BYTES
    assert sorted(run.path.iterdir()) == before
    assert not Reserve(reserve).give_up()


@pytest.mark.parametrize(("disk_full", "kind"), [(True, "disk_full"), (False, "unknown")])
def test_a_full_disk_explains_a_training_whose_log_has_no_word_of_it(
    tmp_path: Path, disk_full: bool, kind: str
) -> None:
    log = tmp_path / "train.log"
    log.write_text("RuntimeError: basic_ios::clear: iostream error\n")
    verdict = judge(tmp_path, log, 1, Expected(evaluation=False), disk_full=disk_full)
    assert verdict.failure is not None
    assert verdict.failure.kind == kind


def test_a_disk_of_which_nothing_can_be_told_is_not_called_full(tmp_path: Path) -> None:
    room = Room(tmp_path / "gone")
    room.look()
    assert not room.ran_out
