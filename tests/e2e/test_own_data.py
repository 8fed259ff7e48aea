"""A user's file with broken rows, through the gate into a real training that evaluates."""

from __future__ import annotations

import json
import math

import pytest
from support_e2e import Demo, Workshop

from palmswift.data.report import DataReport
from palmswift.files import read_jsonl

pytestmark = pytest.mark.e2e

MESSY = "data/samples/clinic/formats/messy.jsonl"


@pytest.fixture(scope="module")
def messy(workshop: Workshop, warm: dict[str, str]) -> Demo:
    """The messy sample, trained on for ten steps, the best checkpoint by eval_loss wanted."""
    settings = (
        *("max_steps=10", "eval_steps=2", "save_steps=2", "logging_steps=1"),
        *("load_best_model_at_end=true", "metric_for_best_model=eval_loss"),
    )
    changes = [word for setting in settings for word in ("--set", f"swift.{setting}")]
    finished = workshop.call(
        *("python", "launchers/train.py", "--recipe", "demo_cpu", "--data", MESSY, *changes),
        *("--set", "data.val_ratio=0.25"),
        env=warm,
    )
    return Demo(workshop, workshop.run_of("demo_cpu"), finished)


def test_the_training_succeeds_on_what_is_left(messy: Demo) -> None:
    assert messy.finished.exit_code == 0, messy.finished.said
    assert messy.finished.left == []
    assert "12 rows read, 6 to train on, 2 held out, 4 rejected" in messy.finished.stderr


def test_every_row_is_accounted_for(messy: Demo) -> None:
    text = (messy.run.data / "report.json").read_text(encoding="utf-8")
    report = DataReport.model_validate_json(text)
    assert (report.read, report.kept, report.rejected) == (12, 8, 4)
    rejected = list(read_jsonl(messy.run.data / "rejected.jsonl"))
    assert [row["line"] for row in rejected] == [3, 6, 8, 11]
    assert all(row["code"] for row in rejected)
    assert len(list(read_jsonl(messy.run.data / "train.jsonl"))) == 6
    assert len(list(read_jsonl(messy.run.data / "val.jsonl"))) == 2


def test_the_evaluation_losses_are_numbers(messy: Demo) -> None:
    losses = messy.run.facts("train")["eval_losses"]
    assert len(losses) >= 5
    assert all(math.isfinite(loss) for loss in losses)


def test_the_best_checkpoint_is_taken_and_the_last_is_kept(messy: Demo) -> None:
    chosen = messy.run.path / str(messy.run.facts("train")["checkpoint"])
    state = json.loads((chosen / "trainer_state.json").read_text(encoding="utf-8"))
    evaluations = [row for row in state["log_history"] if "eval_loss" in row]
    best = min(evaluations, key=lambda row: row["eval_loss"])
    assert chosen.name == f"checkpoint-{best['step']}"
    assert (messy.run.training / "checkpoint-10").is_dir()
