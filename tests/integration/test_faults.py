"""Faults that are planted in real trainings are told as what they are by the installed versions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from support_faults import run_faults
from support_planted import PLANTED

from palmswift.launchers.verdict import Expected, Verdict, judge

pytestmark = pytest.mark.e2e

NEED_ROOT = {"disk_full", "read_only", "not_permitted"}
SLOW = {"network", "network_modelscope", "damaged_cache", "resume_torn_state", "oom_encode"}
"""They wait for a second try, or are like another one."""

NAMES = sorted(PLANTED.keys() - NEED_ROOT - SLOW)


class Runs(NamedTuple):
    """What all trainings left, and how they ended."""

    folder: Path
    codes: dict[str, int]

    def verdict(self, name: str) -> Verdict:
        """The verdict on one of them."""
        expected = Expected(
            evaluation="val_dataset" in PLANTED[name].arguments,
            task="grpo" if PLANTED[name].command == "rlhf" else "sft",
            base=self.folder / "model",
        )
        output, log = self.folder / f"{name}.work" / "out", self.folder / f"{name}.log"
        return judge(output, log, self.codes[name], expected)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All trainings, for the price of one import of ms-swift and a second each."""
    folder = tmp_path_factory.mktemp("faults")
    return Runs(folder, run_faults(NAMES, folder))


@pytest.mark.parametrize("name", NAMES)
def test_a_real_training_is_judged_as_its_fault_says(runs: Runs, name: str) -> None:
    verdict = runs.verdict(name)
    found = ("", "") if verdict.failure is None else verdict.failure[::3]
    assert found == (PLANTED[name].kind, PLANTED[name].phase), (
        verdict.failure,
        (runs.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-3000:],
    )
