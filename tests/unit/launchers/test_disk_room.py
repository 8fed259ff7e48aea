"""A run's record is written on a disk that is really full, and a full disk is noticed as one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support_disk import small_disk
from support_runs import make_run

from palmswift.launchers.disk_room import RESERVED_BYTES, Reserve, Room
from palmswift.launchers.machine import machine_problems
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


def test_a_run_without_room_for_its_own_record_is_not_begun(tmp_path: Path) -> None:
    text = "import sys; from pathlib import Path; from palmswift.launchers.run_folder import *\n"
    text += "with RunFolder(Path(sys.argv[1])).room_kept(): print('begun')"
    with small_disk(tmp_path / "disk", "512k") as disk:
        disk.shell('cp -a "$1" run', make_run(tmp_path / "made").path)
        words = disk.words(sys.executable, "-c", text, disk.folder / "run")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert disk.free > 256 << 10
    assert done.stdout == ""
    assert "there is no room for the record" in done.stderr


def test_what_a_run_has_on_the_disk_counts_to_what_it_needs(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    free = shutil.disk_usage(tmp_path).free >> 20
    budget = run.recipe.budget.model_copy(update={"disk_mib": free + 500_000})
    recipe = run.recipe.model_copy(update={"budget": budget})

    def told() -> bool:
        return any("MiB free" in problem.what for problem in machine_problems(recipe, run.path))

    assert told()
    with (run.path / "checkpoint").open("wb") as stream:
        stream.truncate(1 << 40)  # its length counts; it takes no room of this disk
    assert not told()


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
