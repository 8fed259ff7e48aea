"""Real trainings that run out of memory in training, saving and evaluation, and come home.

The card is a plugin that raises PyTorch's own error when a batch has more tokens than its budget.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support_e2e import ROOT, Finished, Workshop

from palmswift.launchers.run_folder import RunFolder

pytestmark = pytest.mark.e2e

STEPS = 12
BATCH, MICRO_STEPS = "swift.per_device_train_batch_size", "swift.gradient_accumulation_steps"

TRAIN = (
    *("python", "launchers/train.py", "--recipe", "demo_cpu", "--json"),
    *("--set", f"swift.max_steps={STEPS}", "--set", "swift.logging_steps=1"),
    *("--set", "swift.save_steps=4", "--set", "swift.eval_steps=6"),
    *("--set", "swift.save_total_limit=8", "--set", "swift.max_length=128"),
    *("--set", "swift.per_device_eval_batch_size=8"),
)

# Rows have up to 128 tokens, most about 70: four are at most 512, two at most 256.
BUDGET = "backward=520,save=260,evaluation=260"


class Recovered(NamedTuple):
    """A training on a card that is too small, and one on a card that is not."""

    finished: Finished
    run: RunFolder
    undisturbed: RunFolder

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """As they stand in run.json."""
        found = self.run.facts("train")["attempts"]
        assert isinstance(found, list)
        return found


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory, warm: dict[str, str]) -> Recovered:
    """Both trainings; ms-swift is imported once for all their launches."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop-recovery"))
    plugin = ROOT / "tests/data/plugins/memory_budget.py"
    finished = workshop.call(
        *(*TRAIN, "--set", f"{BATCH}=8", "--set", f"{MICRO_STEPS}=1"),
        *("--set", f'plugins=["{plugin}"]', "--set", f"env.PALMSWIFT_TEST_MEMORY={BUDGET}"),
        env=warm,
    )
    run = workshop.run_of("demo_cpu")
    other = workshop.call(
        *(*TRAIN, "--set", f"{BATCH}=2", "--set", f"{MICRO_STEPS}=4"),
        *("--set", "swift.per_device_eval_batch_size=1"),
        env=warm,
    )
    assert other.exit_code == 0, other.said
    return Recovered(finished, run, workshop.run_of("demo_cpu"))


def _losses(run: RunFolder) -> dict[int, float]:
    """The last loss that was logged for each step."""
    lines = (run.training / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {
        int(row["global_step/max_steps"].split("/")[0]): row["loss"]
        for row in rows
        if "loss" in row
    }


def test_a_training_without_memory_in_three_phases_comes_to_its_end(recovered: Recovered) -> None:
    assert recovered.finished.exit_code == 0, recovered.finished.said
    assert recovered.finished.left == []
    assert [attempt["outcome"] for attempt in recovered.attempts] == [
        "out_of_memory (backward)",
        "out_of_memory (save)",
        "out_of_memory (evaluation)",
        "done",
    ]
    assert recovered.run.facts("train")["steps"] == STEPS


def test_each_attempt_changes_what_its_phase_asks_for(recovered: Recovered) -> None:
    assert [attempt["changes"] for attempt in recovered.attempts] == [
        [],
        [f"{BATCH}=4 {MICRO_STEPS}=2"],
        [f"{BATCH}=2 {MICRO_STEPS}=4"],
        [
            "swift.per_device_eval_batch_size=1 swift.eval_accumulation_steps=1 "
            "swift.prediction_loss_only=true"
        ],
    ]


def test_it_goes_on_from_the_last_whole_checkpoint(recovered: Recovered) -> None:
    assert [attempt["resumed_from"] for attempt in recovered.attempts] == [
        *(None, None, None),
        "checkpoint-4",
    ]
    retries = [line for line in recovered.finished.stderr.splitlines() if "retry" in line]
    assert len(retries) == 3
    assert retries[-1].endswith("a mean over rows), from checkpoint-4")


def test_its_losses_are_those_of_an_undisturbed_training_with_the_final_settings(
    recovered: Recovered,
) -> None:
    losses, undisturbed = _losses(recovered.run), _losses(recovered.undisturbed)
    assert list(losses) == list(undisturbed) == list(range(1, STEPS + 1))
    assert losses == pytest.approx(undisturbed, rel=1e-3)
    evaluated = recovered.run.facts("train")["eval_losses"]
    assert evaluated == pytest.approx(recovered.undisturbed.facts("train")["eval_losses"], rel=1e-3)


def test_the_run_says_what_it_was_trained_with(recovered: Recovered) -> None:
    recipe = recovered.run.training_recipe
    assert recipe.swift["per_device_train_batch_size"] == 2
    assert recovered.run.recipe.swift["per_device_train_batch_size"] == 8
    kept: Path = recovered.run.path / "recipe.recovered.yaml"
    assert "gradient_accumulation_steps: 4" in kept.read_text(encoding="utf-8")
