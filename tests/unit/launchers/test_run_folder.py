"""A run folder survives crashes, is found again, and belongs to one launcher at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support_checkpoints import write_adapter
from support_runs import make_recipe, make_run

from palmswift.errors import InputError
from palmswift.launchers.run_folder import RunFolder, checkpoints, find_run


def test_a_run_is_read_back_with_its_recipe_and_its_stages(tmp_path: Path) -> None:
    run = make_run(tmp_path, name="mine")
    with run.stage("data") as facts:
        facts["kept"] = 7
    again = RunFolder(run.path)
    assert again.recipe == make_recipe(name="mine")
    assert again.is_done("data")
    assert again.facts("data") == {"kept": 7}


def test_a_recipe_of_another_version_is_told_by_key_and_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    file = run.path / "recipe.resolved.yaml"
    file.write_text("launch:\n  engine: local\n" + file.read_text().replace("launch:", "x-old:"))
    with pytest.raises(InputError) as caught:
        _ = RunFolder(run.path).recipe
    assert f"{file}:2: launch.engine: input should be 'swift' or 'mlx', not 'local'" in str(
        caught.value
    )
    assert "pydantic" not in str(caught.value)


def test_a_failed_stage_keeps_its_error_and_is_not_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(InputError), run.stage("train"):
        raise InputError("no rows")
    again = RunFolder(run.path)
    assert not again.is_done("train")
    assert again.state.stages["train"].error == "no rows"


def test_a_stage_stopped_by_ctrl_c_is_recorded_as_interrupted(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(KeyboardInterrupt), run.stage("train"):
        raise KeyboardInterrupt
    assert RunFolder(run.path).state.stages["train"].state == "interrupted"


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    paths = {make_run(tmp_path).path for _ in range(3)}
    assert len(paths) == 3


def test_latest_is_the_run_that_was_written_last(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, name="a"), make_run(tmp_path, name="b")
    assert find_run("latest", parent=tmp_path).path == second.path
    first.save()
    assert find_run("latest", parent=tmp_path).path == first.path


def test_an_unknown_run_names_those_there_are(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(InputError, match=run.path.name):
        find_run("nowhere", parent=tmp_path)
    with pytest.raises(InputError, match="no run"):
        find_run("latest", parent=tmp_path / "empty")


def test_a_damaged_run_json_is_told_and_not_a_traceback(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "run.json").write_text('{"recipe": ')
    with pytest.raises(InputError, match=r"run\.json"):
        RunFolder(run.path)


def test_a_second_launcher_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from palmswift.launchers.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(run.path)], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(InputError, match="in use"), run.lock():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with run.lock():
        pass


def test_only_whole_checkpoints_count_and_they_come_in_order(tmp_path: Path) -> None:
    write_adapter(tmp_path, 100)
    write_adapter(tmp_path, 20)
    (tmp_path / "checkpoint-300").mkdir()
    (tmp_path / "checkpoint-old").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-20", "checkpoint-100"]


WRITER = """
import sys
from pathlib import Path
from palmswift.launchers.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
print("writes", flush=True)
for number in range(10**9):
    with run.stage("train") as facts:
        facts["number"] = number
"""


def test_run_json_is_readable_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for number in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(run.path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        before = (run.path / "run.json").stat().st_ino
        while (run.path / "run.json").stat().st_ino == before:
            os.sched_yield()
        for _ in range(number * 500):  # kill it at another point of its writing each time
            os.sched_yield()
        writer.kill()
        writer.communicate()
        stage = RunFolder(run.path).state.stages["train"]
        assert stage.state in ("running", "done")
