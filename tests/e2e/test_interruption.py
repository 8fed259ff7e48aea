"""Signals while real `swift sft` trains, and going on from the last checkpoint."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from support_e2e import Finished, Workshop, wait_until_gone

from palmswift.launchers.events import (
    AttemptEvent,
    CheckpointEvent,
    PhaseEvent,
    StepEvent,
    read_events,
)
from palmswift.launchers.feed import curve
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


def test_the_journal_tells_every_launch_and_step_without_a_gap(training: Training) -> None:
    events = list(read_events(training.run / "events.jsonl"))
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    launches = [event for event in events if isinstance(event, AttemptEvent)]
    assert len(launches) == len(training.launches) + 1
    assert [launch.resumed_from for launch in launches[1:]] == [
        f"checkpoint-{launch.kept}" for launch in training.launches.values()
    ]
    told = [event.step for event in events if isinstance(event, StepEvent)]
    assert told == steps_logged(training.run), "a step that was logged was not told, or told twice"
    steps, _ = curve(events)
    assert [step.step for step in steps] == list(range(1, STEPS + 1))
    assert all(step.loss and step.learning_rate is not None for step in steps)
    speeds = [(step.tokens_per_second or 0, step.supervised_per_second or 0) for step in steps]
    assert all(all_tokens > supervised > 0 for all_tokens, supervised in speeds)
    assert steps[-1].memory_mib and steps[-1].memory_mib > 100
    saved = [event.name for event in events if isinstance(event, CheckpointEvent)]
    assert saved[-1] == f"checkpoint-{STEPS}"
    phases = [event.phase for event in events if isinstance(event, PhaseEvent)]
    last = len(phases) - phases[::-1].index("load") - 1
    assert phases[last : last + 4] == ["load", "encode", "prepare", "train"]
    assert phases[-1] == "end"


def test_a_run_that_was_killed_three_times_has_one_page(training: Training) -> None:
    page = (training.run / "summary.html").read_text(encoding="utf-8")
    assert "The training succeeded." in page
    assert f"from checkpoint-{training.launches[signal.SIGKILL].kept}" in page
    assert len(page.encode()) < 200_000


def test_run_json_has_what_the_run_was_and_took(training: Training) -> None:
    state = RunFolder(training.run).state
    assert state.swift_arguments["learning_rate"] == 4e-3
    assert state.swift_arguments["max_steps"] == STEPS
    assert state.seeds["swift.seed"] == 42
    assert state.resolved["swift"]["max_steps"] == STEPS
    assert state.stages["train"].facts["memory"]["measured_mib"] > 100
    assert set(state.stages["data"].facts["rows"]) >= {"train.jsonl"}
    assert "config.json" in state.stages["model"].facts["files"]


def test_a_checkpoint_names_no_plugin_of_ours_so_that_it_can_be_served_elsewhere(
    training: Training,
) -> None:
    arguments = json.loads((training.run / f"train/checkpoint-{STEPS}/args.json").read_text())
    assert arguments["external_plugins"] == []


def test_the_run_can_be_repeated_here(workshop: Workshop, training: Training) -> None:
    again = workshop.call(
        "python", "launchers/runs.py", "reproduce", training.run.name, "--dry-run"
    )
    assert again.exit_code == 0, again.said
    listed = workshop.call("python", "launchers/runs.py", "list", "--json")
    [line] = [line for line in listed.document["runs"] if line["run"] == training.run.name]
    assert (line["state"], line["steps"]) == ("done", STEPS)


def test_a_finished_training_is_not_trained_again(workshop: Workshop, training: Training) -> None:
    again = workshop.call("python", "launchers/train.py", "--resume", training.run.name)
    assert again.exit_code == 0, again.said
    assert f"checkpoint-{STEPS}" in again.stdout
    assert "train    sft" not in again.stderr
