"""A training that was cut off anywhere and gone on with ends as one that was left alone: same bits.

ms-swift is imported once (benchmarks/resume/forks.py); each training is a fork of that process.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.resume.forks import Nursery
from benchmarks.resume.kills import CASES, STEPS, Bench, Evidence, differences, evidence
from palmswift.launchers.checkpoint_survey import survey
from palmswift.launchers.verdict import Expected, judge

pytestmark = pytest.mark.e2e


class Runs(NamedTuple):
    """Trainings in one folder, and what those come to that are left alone."""

    bench: Bench

    def folder(self, name: str) -> Path:
        """Where a training writes."""
        return self.bench.folder / name.replace("@", "-").replace(" ", "-")

    def whole(self, case: str) -> Evidence:
        """What a case comes to when nothing disturbs it."""
        return _whole(self.bench, case)


@cache
def _whole(bench: Bench, case: str) -> Evidence:
    out = bench.folder / f"{case}-whole"
    assert bench.train(CASES[case], out) == 0, out.with_suffix(".log").read_text()
    return evidence(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The process that the trainings are forked from, a small model and a few rows."""
    with Nursery() as nursery:
        yield Runs(Bench(nursery, tmp_path_factory.mktemp("exact")))


@pytest.mark.parametrize(
    ("case", "faults"),
    [
        ("lora", ["kill@9"]),
        ("lora", ["kill-optimizer@8", "kill-evaluation@15"]),
        ("lora", ["kill-rotate@12"]),
        ("full", ["kill-weights@12"]),
        ("full", ["kill-seal@16"]),
        ("lora-workers", ["kill@10"]),
        ("dpo", ["kill@10"]),
    ],
)
def test_what_was_killed_ends_as_what_was_left_alone(
    runs: Runs, case: str, faults: list[str]
) -> None:
    out = runs.folder(f"{case} {' '.join(faults)}")
    for fault in faults:
        assert runs.bench.go_on(CASES[case], out, fault) == -signal.SIGKILL
    assert runs.bench.go_on(CASES[case], out) == 0, out.with_suffix(".log").read_text()
    assert differences(runs.whole(case), evidence(out)) == []


@pytest.mark.parametrize(
    ("case", "fault", "step"),
    [
        ("lora", "ask@11", 11),
        ("lora", "ask-evaluation@5", 5),
        ("lora-by-length", "ask@7", 8),  # the end of an epoch: one more step keeps that whole
        ("lora-epochs", "ask-evaluation@7", 7),
    ],
)
def test_what_was_stopped_in_good_order_says_so_and_ends_as_what_was_left_alone(
    runs: Runs, case: str, fault: str, step: int
) -> None:
    out = runs.folder(f"{case} {fault}")
    control = out.with_suffix(".control")
    control.mkdir()
    assert runs.bench.train(CASES[case], out, fault, control=control) == 0
    answer = json.loads((control / "stopped").read_text())
    assert answer == {"step": step, "checkpoint": str(out / f"checkpoint-{step}")}
    assert survey(out)[-1] == (step, out / f"checkpoint-{step}", "")
    assert runs.bench.go_on(CASES[case], out) == 0, out.with_suffix(".log").read_text()
    assert differences(runs.whole(case), evidence(out)) == []


def test_a_request_at_the_last_step_lets_the_training_end(runs: Runs) -> None:
    out = runs.folder("last")
    control = out.with_suffix(".control")
    control.mkdir()
    assert runs.bench.train(CASES["lora"], out, f"ask@{STEPS}", control=control) == 0
    assert not (control / "stopped").exists()
    assert differences(runs.whole("lora"), evidence(out)) == []


@pytest.mark.parametrize("case", ["lora", "full"])
def test_what_was_killed_and_moved_ends_as_what_was_left_alone(runs: Runs, case: str) -> None:
    out, moved = runs.folder(f"{case} before"), runs.folder(f"{case} elsewhere")
    assert runs.bench.train(CASES[case], out, "kill@10") == -signal.SIGKILL
    out.rename(moved)
    assert runs.bench.go_on(CASES[case], moved) == 0, moved.with_suffix(".log").read_text()
    assert differences(runs.whole(case), evidence(moved)) == []


def test_a_moved_run_goes_on_and_finds_its_best_checkpoint(runs: Runs) -> None:
    case = {**CASES["lora"], "load_best_model_at_end": "true", "eval_steps": 4}
    out, moved = runs.folder("moves"), runs.folder("moved")
    assert runs.bench.train(case, out, "kill@9") == -signal.SIGKILL
    out.rename(moved)
    assert runs.bench.go_on(case, moved) == 0, moved.with_suffix(".log").read_text()
    state = json.loads((survey(moved)[-1].path / "trainer_state.json").read_text())
    best = Path(state["best_model_checkpoint"])
    assert best == moved / f"checkpoint-{state['best_global_step']}"
    assert best.is_dir()


def test_the_clock_may_go_back_a_day_and_the_newest_checkpoints_are_kept(runs: Runs) -> None:
    out = runs.folder("clock")
    assert runs.bench.train(CASES["lora"], out, "clock@9") == 0
    assert differences(runs.whole("lora"), evidence(out)) == []
    assert [found.step for found in survey(out)] == [20, STEPS]


@pytest.mark.parametrize(
    ("changes", "faults", "kind"),
    [({}, "nan@9", "loss_not_finite"), ({"num_train_epochs": 0}, "", "no_steps")],
)
def test_a_training_that_ends_well_without_learning_has_failed(
    runs: Runs, changes: dict[str, object], faults: str, kind: str
) -> None:
    out = runs.folder(kind)
    code = runs.bench.train({**CASES["lora"], **changes}, out, faults)
    verdict = judge(out, out.with_suffix(".log"), code, Expected(evaluation=False))
    assert verdict.failure is not None
    assert verdict.failure.kind == kind
