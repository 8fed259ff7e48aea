"""A training whose disk is really full, or really read-only: told as such, and gone on with.

`runs/` is a file system of some MiB; one run meets its end three times and comes home.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from support_disk import SmallDisk, small_disk
from support_e2e import Finished, Workshop
from support_forks import warm_swift

pytestmark = pytest.mark.e2e

STEPS = 16
ONE_CHECKPOINT, ALL = "36m", "120m"
"""A checkpoint of the demo has 20 MiB."""

TRAIN = (
    *("python", "launchers/train.py", "--recipe", "demo_cpu"),
    *("--data", "data/samples/clinic/val.jsonl", "--set", "budget.disk_mib=1"),
    *("--set", f"swift.max_steps={STEPS}", "--set", "swift.save_steps=4"),
    *("--set", "swift.eval_steps=8", "--set", "swift.logging_steps=1"),
)
RESUME = ("python", "launchers/train.py", "--resume", "latest")

FILLER = '''
"""Fills the disk of output_dir at a step, as another program would."""
import os
from pathlib import Path
from swift.trainers.mixin import SwiftMixin
from transformers import TrainerCallback

class Filler(TrainerCallback):
    def on_step_begin(self, args, state, control, **named):
        if state.global_step == 6 and "PALMSWIFT_FILL" in os.environ:
            with open(Path(args.output_dir).parents[1] / "filler", "wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    return

train = SwiftMixin.train
def train_filled(self, *args, **named):
    self.add_callback(Filler())
    return train(self, *args, **named)
SwiftMixin.train = train_filled
'''


class Launch(NamedTuple):
    """How a launch ended, and what it left on the disk."""

    finished: Finished
    state: dict[str, Any]
    checkpoints: list[str]
    free: int

    @property
    def training(self) -> tuple[str, str]:
        """The state of the training in run.json, and its class of failure."""
        stage = self.state["stages"]["train"]
        return stage["state"], stage["facts"].get("failure", {}).get("kind", "")


class Launches(NamedTuple):
    """The launches of the one run."""

    filled: Launch
    """The disk is filled by others in the middle of the training."""
    no_room: Finished
    """It is gone on with while there is still no room."""
    cut: Launch
    """There is room for one checkpoint, and a second is saved."""
    home: Launch
    read_only: list[Finished]
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    """All launches, on one file system."""
    workshop = Workshop(tmp_path_factory.mktemp("full-disk"))
    (workshop.folder / "filler.py").write_text(FILLER)
    with (
        small_disk(workshop.folder / "runs", ONE_CHECKPOINT) as disk,
        warm_swift(workshop.folder, disk.words) as warm,
    ):
        yield _launches(workshop, disk, warm["PALMSWIFT_SWIFT"])


def _launches(workshop: Workshop, disk: SmallDisk, swift: str) -> Launches:
    def call(*words: str, **env: str) -> Finished:
        known = {"PALMSWIFT_SWIFT": swift, **env}
        return workshop.call(*disk.words(*words, cwd=workshop.folder), env=known)

    def launch(*words: str, **env: str) -> Launch:
        finished = call(*words, **env)
        state = json.loads(disk.shell("cat demo_cpu-*/run.json"))
        kept = disk.shell("ls demo_cpu-*/train").split()
        return Launch(
            finished, state, [name for name in kept if name[:11] == "checkpoint-"], disk.free
        )

    own = ("--set", f"plugins=[{workshop.folder / 'filler.py'}]")
    filled = launch(*TRAIN, *own, PALMSWIFT_FILL="1")
    disk.shell("head -c 200m /dev/zero >> filler || true")
    no_room = call(*RESUME)
    disk.shell("rm filler")
    cut = launch(*RESUME)
    disk.resize(ALL)
    home = launch(*RESUME)
    events = disk.shell("cat demo_cpu-*/events.jsonl").splitlines()
    disk.read_only()
    read_only = [call(*TRAIN), call(*RESUME)]
    return Launches(filled, no_room, cut, home, read_only, [json.loads(line) for line in events])


@pytest.mark.parametrize("name", ["filled", "cut"])
def test_a_full_disk_is_told_as_that_in_a_record_that_can_be_read(
    launches: Launches, name: str
) -> None:
    launch: Launch = getattr(launches, name)
    assert launch.finished.exit_code == 3, launch.finished.said
    assert launch.training == ("failed", "disk_full"), launch.finished.said
    assert "the disk is full" in launch.finished.stderr
    assert "make room" in launch.finished.stderr
    assert "--resume" in launch.finished.stderr
    assert launch.finished.left == []


def test_what_did_not_fit_is_removed_and_what_was_saved_before_is_kept(launches: Launches) -> None:
    assert launches.filled.checkpoints == ["checkpoint-4"]
    assert launches.cut.checkpoints == ["checkpoint-4"]
    assert "checkpoint-8 did not fit on the disk: it is removed" in launches.cut.finished.stderr
    assert launches.cut.free > 1 << 20


def test_a_run_is_not_gone_on_with_before_there_is_room(launches: Launches) -> None:
    assert launches.no_room.exit_code == 2, launches.no_room.said
    assert "0 MiB free" in launches.no_room.stderr
    assert "make room" in launches.no_room.stderr


def test_with_room_the_run_comes_home_with_every_step_and_event(launches: Launches) -> None:
    assert launches.home.finished.exit_code == 0, launches.home.finished.said
    assert launches.home.training == ("done", "")
    assert "from checkpoint-4" in launches.home.finished.stderr
    assert f"checkpoint-{STEPS}" in launches.home.checkpoints
    numbers = [event["n"] for event in launches.events]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_disk_that_can_only_be_read_is_told_before_anything_begins(launches: Launches) -> None:
    for finished in launches.read_only:
        assert finished.exit_code == 2, finished.said
        assert "Read-only file system" in finished.stderr
        assert "Traceback" not in finished.stderr
