"""A training is asked to stop, answers with a checkpoint, and is ended when it does not hear."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support_deploy import REPOSITORY, processes_of
from support_runs import StandIn, prepare_project, write_project_recipe

from palmswift.launchers import gpu_release
from palmswift.launchers.run_folder import RunFolder, find_run
from palmswift.launchers.stopping import Control, OrderlyEnd, Signals
from palmswift.launchers.train import main

_LAUNCHERS: list[subprocess.Popen[bytes]] = []


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, in a project at `tmp_path` that has the recipe `mine`."""
    stand_in = prepare_project(tmp_path, monkeypatch)
    write_project_recipe(tmp_path)
    yield stand_in
    while _LAUNCHERS:  # those of a test that failed; their guards end the rest
        launcher = _LAUNCHERS.pop()
        launcher.kill()
        launcher.wait()


def _wait_for(what: str, found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _is_guard(process: psutil.Process) -> bool:
    try:
        return "palmswift.guard" in process.cmdline()
    except psutil.Error:  # a zombie, until its parent looks
        return False


class Launched:
    """A launcher on a run that has its data, with its words in files."""

    def __init__(self, swift: StandIn, mode: str, script: str = "train.py", **streams: int) -> None:
        swift.set("oom")
        main(["--recipe", "mine"])
        swift.set(mode)
        self.run = find_run("latest")
        self.told = swift.folder / "told"
        with self.told.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "launchers" / script), "--resume", "latest"],
                **{"stdout": told, "stderr": told, **streams},  # type: ignore[call-overload]
                env={**os.environ},
                start_new_session=True,
            )
        _LAUNCHERS.append(self.process)
        _wait_for("the training is at step 3", swift.is_hanging)

    @property
    def said(self) -> str:
        """What it has told so far."""
        return self.told.read_text(encoding="utf-8")

    def state(self) -> str:
        """What run.json says of the training."""
        return RunFolder(self.run.path).state.stages["train"].state


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_lets_the_step_be_saved_and_the_run_goes_on_from_it(
    tmp_path: Path, swift: StandIn, number: signal.Signals
) -> None:
    launched = Launched(swift, "orderly")
    launched.process.send_signal(number)
    assert launched.process.wait(30) == 130
    assert processes_of(tmp_path) == []
    assert launched.state() == "interrupted"
    assert "asked the training to stop" in launched.said
    assert "stopped after step 3" in launched.said
    assert f"go on with: python launchers/train.py --resume {launched.run.path.name}" in (
        launched.said
    )
    swift.set("good")
    assert main(["--resume", "latest"]) == 0
    assert swift.calls[-1]["resume_from_checkpoint"] == [
        str(launched.run.training / "checkpoint-3")
    ]


def test_the_pipeline_stops_in_its_training_as_the_training_alone(
    tmp_path: Path, swift: StandIn
) -> None:
    launched = Launched(swift, "orderly", "pipeline.py")
    launched.process.send_signal(signal.SIGTERM)
    assert launched.process.wait(30) == 130
    assert processes_of(tmp_path) == []
    assert launched.state() == "interrupted"
    assert "stopped after step 3" in launched.said
    assert f"go on with: python launchers/pipeline.py --resume {launched.run.path.name}" in (
        launched.said
    )


def test_a_second_signal_ends_a_training_that_does_not_hear(tmp_path: Path, swift: StandIn) -> None:
    launched = Launched(swift, "deaf")
    launched.process.send_signal(signal.SIGINT)
    _wait_for("the user is told", lambda: "asked the training to stop" in launched.said)
    assert launched.process.poll() is None
    launched.process.send_signal(signal.SIGINT)
    assert launched.process.wait(30) == 130
    assert processes_of(tmp_path) == []
    assert launched.state() == "interrupted"
    swift.set("good")
    assert main(["--resume", "latest"]) == 0


def test_a_training_that_ends_before_it_is_stopped_is_done_and_nothing_follows(
    swift: StandIn,
) -> None:
    launched = Launched(swift, "late")
    launched.process.send_signal(signal.SIGTERM)
    assert launched.process.wait(30) == 130
    assert launched.state() == "done"
    calls = len(swift.calls)
    assert main(["--resume", "latest"]) == 0
    assert len(swift.calls) == calls


def test_a_closed_terminal_stops_the_training_in_good_order(tmp_path: Path, swift: StandIn) -> None:
    ours, theirs = pty.openpty()
    launched = Launched(swift, "orderly", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)  # what was written there can be read by nobody: writing now fails
    launched.process.send_signal(signal.SIGHUP)
    assert launched.process.wait(30) == 130
    assert processes_of(tmp_path) == []
    assert launched.state() == "interrupted"


def test_a_killed_guard_is_replaced_so_that_a_killed_launcher_leaves_nothing(
    tmp_path: Path, swift: StandIn
) -> None:
    launched = Launched(swift, "deaf")

    def guards() -> list[psutil.Process]:
        children = psutil.Process(launched.process.pid).children()
        return [child for child in children if _is_guard(child)]

    (first,) = guards()
    first.kill()
    _wait_for("there is another guard", lambda: [g for g in guards() if g != first])
    launched.process.kill()
    launched.process.wait()
    _wait_for("the training is gone", lambda: processes_of(tmp_path) == [])


def test_a_checkpoint_of_the_last_step_is_judged_and_not_trained_on(swift: StandIn) -> None:
    main(["--recipe", "mine"])
    run = find_run("latest")
    state = run.training / "checkpoint-4" / "trainer_state.json"
    state.write_text('{"global_step": 4, "max_steps": 4, "best_global_step": null}')
    run.state.stages["train"].state = "running"  # the launcher was killed after the last save
    run.save()
    assert main(["--resume", "latest"]) == 0
    assert len(swift.calls) == 1
    assert find_run("latest").facts("train")["steps"] == 4


def test_what_was_said_to_an_earlier_training_does_not_stop_the_next(tmp_path: Path) -> None:
    Control(tmp_path / "control").ask()
    again = Control(tmp_path / "control")
    assert list(again.folder.iterdir()) == []


def test_a_training_that_has_answered_and_does_not_go_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, signals = Control(tmp_path / "control"), Signals()
    (control.folder / "stepping").touch()
    signals.came = 1
    end = OrderlyEnd(control, signals)
    assert "saves a checkpoint" in end.heed()
    (control.folder / "stopped").write_text('{"step": 3}')
    assert end.heed() == ""
    monkeypatch.setattr("palmswift.launchers.stopping._LEAVING_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        end.heed()


def test_the_command_returns_when_the_driver_has_let_go_of_ended_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    asked = tmp_path / "asked"
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\necho x >> "{asked}"\necho {os.getpid()}\n'
        f'[ "$(wc -l < "{asked}")" -ge 3 ] || echo {ended.pid}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_release.wait_until_released(set()) == set()
    assert len(asked.read_text().split()) == 3
    asked.unlink()
    assert gpu_release.wait_until_released(set(), patience=0.0) == {ended.pid}
    assert gpu_release.wait_until_released({ended.pid}, patience=0.0) == set()
