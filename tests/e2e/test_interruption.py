"""Signals while real `swift sft` trains, and going on from the last checkpoint."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from support_e2e import Finished, Workshop, wait_until_gone

from palmswift.launchers.run_folder import RunFolder, checkpoints

pytestmark = pytest.mark.e2e

STEPS, SAVED_EVERY = 60, 10

TRAIN = (
    *("python", "launchers/train.py", "--recipe", "demo_cpu"),
    *("--data", "data/samples/clinic/val.jsonl"),
    *("--set", f"swift.max_steps={STEPS}", "--set", f"swift.save_steps={SAVED_EVERY}"),
    *("--set", "swift.logging_steps=1"),
)
RESUME = ("python", "launchers/train.py", "--resume", "latest")


class Interrupted(NamedTuple):
    """A launch that a signal ended while it trained."""

    finished: Finished
    kept: int
    """The step of the last checkpoint that it left."""
    state: str
    """What run.json says of the training."""


class Training(NamedTuple):
    """One run that was stopped by each signal in turn, gone on with each time, and finished."""

    run: Path
    launches: dict[signal.Signals, Interrupted]
    last: Finished


@pytest.fixture(scope="module")
def training(workshop: Workshop) -> Training:
    """The run with its four launches."""
    launches = {}
    for words, number in (
        (TRAIN, signal.SIGINT),
        (RESUME, signal.SIGTERM),
        (RESUME, signal.SIGKILL),
    ):
        launches[number] = interrupted(workshop, words, number)
    last = workshop.call(*RESUME)
    return Training(workshop.run_of("demo_cpu").path, launches, last)


def interrupted(workshop: Workshop, words: tuple[str, ...], number: signal.Signals) -> Interrupted:
    """Start, wait until a new checkpoint is whole, send the signal."""
    with workshop.started(*words) as command:
        told = command.until("the run's folder is told", lambda: told_folder(command.stderr))
        found = workshop.folder / told
        before = last_step(found)
        command.until("a checkpoint is saved", lambda: True if last_step(found) > before else None)
        command.signal(number)
        finished = command.wait()
        wait_until_gone(finished.mark)
    return Interrupted(finished, last_step(found), RunFolder(found).state.stages["train"].state)


def told_folder(text: str) -> Path | None:
    """The run folder that a launcher has told, None before."""
    told = [line.split()[1] for line in text.splitlines() if line.startswith("run ")]
    return Path(told[0]) if told else None


def last_step(run: Path) -> int:
    """The step of a run's last whole checkpoint, 0 when it has none."""
    found = checkpoints(run / "train")
    return int(found[-1].name.rpartition("-")[2]) if found else 0


def steps_logged(run: Path) -> list[int]:
    """The steps whose loss was logged, in the order in which that was done."""
    lines = (run / "train" / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [int(row["global_step/max_steps"].split("/")[0]) for row in rows if "loss" in row]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_be_saved_and_leaves_no_process(
    training: Training, number: signal.Signals
) -> None:
    launch = training.launches[number]
    assert launch.finished.exit_code == 130, launch.finished.said
    assert launch.finished.left == []
    assert launch.state == "interrupted"
    assert f"stopped after step {launch.kept}, which is saved" in launch.finished.stderr
    assert "Traceback" not in launch.finished.stderr
    assert f"go on with: python launchers/train.py --resume {training.run.name}" in (
        launch.finished.stderr
    )


def test_a_killed_launcher_takes_its_training_with_it(training: Training) -> None:
    launch = training.launches[signal.SIGKILL]
    assert launch.finished.exit_code == -signal.SIGKILL
    assert last_step(training.run) == STEPS, "the run could not be gone on with"


def test_a_resumed_training_begins_at_its_last_checkpoint_and_finishes(training: Training) -> None:
    assert training.last.exit_code == 0, training.last.said
    kept = [launch.kept for launch in training.launches.values()]
    assert kept == sorted(set(kept))
    assert kept[0] >= SAVED_EVERY and kept[-1] < STEPS
    told = [launch.finished.stderr for launch in training.launches.values()][1:]
    for step, stderr in zip(kept, [*told, training.last.stderr], strict=True):
        assert f"from checkpoint-{step}" in stderr
    assert steps_logged(training.run) == list(range(1, STEPS + 1))
    run = RunFolder(training.run)
    assert run.is_done("train")
    assert run.facts("train")["checkpoint"] == f"train/checkpoint-{STEPS}"


def test_a_finished_training_is_not_trained_again(workshop: Workshop, training: Training) -> None:
    again = workshop.call("python", "launchers/train.py", "--resume", training.run.name)
    assert again.exit_code == 0, again.said
    assert f"checkpoint-{STEPS}" in again.stdout
    assert "train    sft" not in again.stderr
