"""The proof of exact resumption sees each difference, and kills within the training."""

from __future__ import annotations

import random

from benchmarks.resume.kills import STEPS, Evidence, differences, random_fault

ROWS = [{"loss": 2.0, "step": 1}, {"loss": 1.0, "step": 2}]
WHOLE = Evidence(21, {"optimizer.pt": "a", "model.safetensors": "b"}, ROWS)


def test_the_same_is_the_same() -> None:
    assert differences(WHOLE, Evidence(21, dict(WHOLE.digests), [dict(row) for row in ROWS])) == []


def test_each_file_number_and_missing_row_is_a_difference() -> None:
    assert differences(WHOLE, WHOLE._replace(step=20)) == ["step 21 and 20"]
    assert differences(WHOLE, WHOLE._replace(digests={"optimizer.pt": "a"})) == [
        "model.safetensors"
    ]
    (found,) = differences(WHOLE, WHOLE._replace(rows=[ROWS[0], {"loss": 1.0001, "step": 2}]))
    assert "1.0001" in found
    assert differences(WHOLE, WHOLE._replace(rows=ROWS[:1])) == ["2 and 1 logged rows"]


def test_faults_are_of_every_kind_and_within_the_training() -> None:
    chance = random.Random(1)
    faults = [random_fault(chance, 2.0).partition("@") for _ in range(300)]
    kinds = {what for what, _, _ in faults}
    parts = ("weights", "optimizer", "rng", "state", "seal", "rotate")
    assert kinds == {"kill", "kill-evaluation", "kill-after", *(f"kill-{part}" for part in parts)}
    assert all(0 < float(where) < STEPS for what, _, where in faults)
