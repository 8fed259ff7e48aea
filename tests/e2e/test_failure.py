"""Trainings that end well by their exit code and trained nothing: each is told as what it is."""

from __future__ import annotations

import pytest
from support_e2e import Workshop

pytestmark = pytest.mark.e2e


def test_a_loss_that_is_not_a_number_fails_the_run(workshop: Workshop) -> None:
    failed = workshop.call(
        *("python", "launchers/train.py", "--recipe", "demo_cpu", "--json"),
        *("--data", "data/samples/clinic/val.jsonl", "--set", "swift.max_steps=20"),
        # So large a step that the weights overflow after the first.
        *("--set", "swift.learning_rate=1e38", "--set", "swift.eval_strategy=no"),
    )
    run = workshop.run_of("demo_cpu")
    assert failed.exit_code == 3, failed.said
    assert "loss_not_finite" in failed.document["error"]["summary"]
    assert run.state.stages["train"].state == "failed"
    assert run.facts("train")["failure"]["kind"] == "loss_not_finite"
    assert failed.left == []


def test_a_training_without_a_step_fails_the_run(workshop: Workshop, warm: dict[str, str]) -> None:
    failed = workshop.call(
        *("python", "launchers/train.py", "--recipe", "demo_cpu", "--json"),
        # A batch that there are not enough rows for, and incomplete ones are dropped.
        *("--data", "data/samples/clinic/val.jsonl", "--set", "swift.dataloader_drop_last=true"),
        *("--set", "swift.per_device_train_batch_size=100", "--set", "swift.eval_strategy=no"),
        env=warm,
    )
    run = workshop.run_of("demo_cpu")
    assert failed.exit_code == 3, failed.said
    assert "no_steps" in failed.document["error"]["summary"]
    assert run.state.stages["train"].state == "failed"
    assert run.facts("train")["failure"]["kind"] == "no_steps"
    assert "checkpoint" not in run.facts("train")
