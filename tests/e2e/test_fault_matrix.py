"""Faults that meet a training under its launcher, one after the other, on one run: all end well.

Each launch goes on with the run that the one before left, with the real `swift sft`. What a fault
does to the trainer alone is in test_exact_resume.py, a full disk in test_full_disk.py.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from support_e2e import Finished, Workshop, wait_until_gone

from benchmarks.resume.kills import FAULTS
from palmswift.launchers.run_folder import RunFolder, checkpoints

pytestmark = pytest.mark.e2e

STEPS = 24

TRAIN = (
    *("python", "launchers/train.py", "--recipe", "demo_cpu"),
    *("--data", "data/samples/clinic/val.jsonl"),
    *("--set", f"swift.max_steps={STEPS}", "--set", "swift.save_steps=4"),
    *("--set", "swift.eval_steps=8", "--set", "swift.logging_steps=1"),
    *("--set", f"plugins=[{FAULTS}]"),
)
RESUME = ("python", "launchers/train.py", "--resume", "latest")


class Launch(NamedTuple):
    """How a launch ended, and what run.json said of the training then."""

    finished: Finished
    state: str
    failure: str
    whole: list[str]


class Matrix(NamedTuple):
    """The launches by the fault that they met."""

    run: Path
    killed: Launch
    hanging: Launch
    second: Finished
    clock: Launch


def _launched(workshop: Workshop, finished: Finished) -> Launch:
    run = workshop.run_of("demo_cpu")
    stage = run.state.stages["train"]
    failure = str(stage.facts.get("failure", {}).get("kind", ""))
    return Launch(finished, stage.state, failure, [path.name for path in checkpoints(run.training)])


@pytest.fixture(scope="module")
def matrix(workshop: Workshop) -> Matrix:
    """One run with all its launches."""

    def launch(words: tuple[str, ...], fault: str) -> Launch:
        return _launched(workshop, workshop.call(*words, env={"PALMSWIFT_FAULT": fault}))

    killed = launch(TRAIN, "kill-optimizer@8")
    run = workshop.run_of("demo_cpu").path
    with workshop.started(*RESUME, env={"PALMSWIFT_FAULT": "hang@14"}) as command:
        log = run / "train" / "logging.jsonl"
        command.until("step 13 is taken", lambda: True if _step(log) == 13 else None)
        second = workshop.call(*RESUME)
        command.signal(signal.SIGINT)
        command.until(
            "the user is told", lambda: True if "asked the training" in command.stderr else None
        )
        command.signal(signal.SIGINT)
        finished = command.wait()
        wait_until_gone(finished.mark)
    hanging = _launched(workshop, finished)
    return Matrix(run, killed, hanging, second, launch(RESUME, "clock@15"))


def _step(log: Path) -> int:
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [row["global_step/max_steps"].split("/")[0] for row in rows if "loss" in row]
    return int(steps[-1]) if steps else 0


def test_a_kill_in_a_save_costs_the_checkpoint_that_was_being_written_alone(
    matrix: Matrix,
) -> None:
    launch = matrix.killed
    assert launch.finished.exit_code == 3, launch.finished.said
    assert (launch.state, launch.failure) == ("failed", "killed")
    assert launch.whole == ["checkpoint-4"]
    assert launch.finished.left == []
    assert "--resume" in launch.finished.stderr


def test_a_torn_checkpoint_is_kept_aside_and_the_one_before_is_taken(matrix: Matrix) -> None:
    said = matrix.hanging.finished.stderr
    assert "checkpoint-8 is torn" in said
    assert "from checkpoint-4" in said
    assert (matrix.run / "torn" / "checkpoint-8").is_dir()


def test_a_second_launcher_on_the_run_is_refused(matrix: Matrix) -> None:
    assert matrix.second.exit_code == 2, matrix.second.said
    assert "is in use by another palmswift process" in matrix.second.stderr


def test_a_trainer_that_hangs_is_ended_by_a_second_ctrl_c(matrix: Matrix) -> None:
    launch = matrix.hanging
    assert launch.finished.exit_code == 130, launch.finished.said
    assert launch.state == "interrupted"
    assert launch.whole[-1] == "checkpoint-12"
    assert launch.finished.left == []
    assert "Traceback" not in launch.finished.stderr


def test_after_all_of_it_the_run_comes_home_with_every_step_once(matrix: Matrix) -> None:
    launch = matrix.clock
    assert launch.finished.exit_code == 0, launch.finished.said
    assert "from checkpoint-12" in launch.finished.stderr
    assert launch.state == "done"
    run = RunFolder(matrix.run)
    assert run.facts("train")["checkpoint"] == f"train/checkpoint-{STEPS}"
    rows = (run.training / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(row) for row in rows]
    steps = [row["global_step/max_steps"] for row in told if "loss" in row]
    assert steps == [f"{step}/{STEPS}" for step in range(1, STEPS + 1)]


def test_no_time_is_counted_that_a_jump_of_the_clock_made_up(matrix: Matrix) -> None:
    stages = RunFolder(matrix.run).state.stages.values()
    assert all(0 <= (stage.seconds or 0) < 3600 for stage in stages)
