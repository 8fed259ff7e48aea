"""Numbers of a training that went wrong are told from those of one that learnt."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.launchers.loss_history import exploded, faults, remarks
from palmswift.launchers.training_log import LogRecord

NAN = float("nan")


def _records(losses: list[float], norms: list[float] | None = None) -> list[LogRecord]:
    norms = norms or [1.0] * len(losses)
    return [
        LogRecord(step, len(losses), loss, numbers={"loss": loss, "grad_norm": norm})
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1)
    ]


def _rewards(norms: list[float], spreads: list[float]) -> list[LogRecord]:
    return [
        LogRecord(step, 9, 0.0, numbers={"grad_norm": norm, "reward_std": spread, "reward": 0.5})
        for step, (norm, spread) in enumerate(zip(norms, spreads, strict=True), start=1)
    ]


def _kind(records: list[LogRecord], task: str = "sft") -> str:
    found = faults(records, task)
    return found.kind if found else ""


@pytest.mark.parametrize(
    ("losses", "kind"),
    [
        ([], "no_steps"),
        ([2.0, NAN, 1.0], "loss_not_finite"),
        ([2.0, float("inf")], "loss_not_finite"),
        ([0.0, 0.0], "loss_zero"),
        ([0.7] * 5, "loss_stuck"),
        ([0.7] * 4, ""),  # too few to tell
        ([2.0, 1.5, 1.2, 9.0, 40.0, 90.0], "loss_exploded"),
        ([2.0, 1.5, 1.2, 90.0, 1.1, 1.0], ""),  # one bad batch
        ([2.0, 1.0, 0.5, 0.1, 0.001, 0.0001], ""),
        ([0.01, 0.02, 0.03, 0.02, 0.04, 0.02], ""),  # it wavers about something small
        ([3.0, 40.0], "loss_exploded"),
        ([3.0, 2.0], ""),
    ],
)
def test_losses_tell_how_a_training_went(losses: list[float], kind: str) -> None:
    assert _kind(_records(losses)) == kind


@pytest.mark.parametrize("loss", [NAN, 0.0])
def test_a_loss_over_no_tokens_is_told_as_that(loss: float) -> None:
    assert _kind(_records([loss] * 3, [0.0] * 3)) == "no_trained_tokens"
    assert _kind(_records([2.0, loss], [1.0, 0.0])) == ("loss_not_finite" if loss else "")


def test_the_step_of_the_first_loss_that_is_no_number_is_told() -> None:
    found = faults(_records([2.0, 1.0, NAN, NAN]), "dpo")
    assert found is not None
    assert "at step 3" in found.cause


def test_gradients_that_stay_infinite_fail_a_training_and_single_ones_do_not() -> None:
    losses = [2.0, 1.9, 1.8, 1.7, 1.6]
    assert _kind(_records(losses, [1, NAN, 1, float("inf"), 1])) == ""  # steps that are skipped
    assert _kind(_records(losses, [1, 1, NAN, NAN, NAN])) == "grad_not_finite"
    found = faults(_records(losses, [1, 1, NAN, NAN, NAN]), "sft")
    assert found is not None
    assert "at step 3" in found.cause


def test_a_loss_of_zero_is_right_for_grpo_as_long_as_there_is_a_gradient() -> None:
    assert _kind(_rewards([0.5, 0.0, 0.7], [0.3, 0.0, 0.4]), "grpo") == ""
    assert _kind(_rewards([0.0, 0.0], [0.0, 0.0]), "grpo") == "reward_flat"
    assert _kind(_rewards([0.0, 0.0], [0.3, 0.2]), "grpo") == "grad_zero"
    assert _kind(_records([0.0, NAN]), "grpo") == "loss_not_finite"


def test_what_is_odd_and_no_failure_is_remarked() -> None:
    flat = [2.0 + 0.01 * (-1) ** step for step in range(12)]
    (told,) = remarks(_records(flat), "sft")
    assert "did not fall" in told
    jumped = [2.0, 1.9, 1.8, 1.7, 55.0, 1.5, 1.4, 1.3, 1.2, 1.1]
    (told,) = remarks(_records(jumped), "sft")
    assert "jumped to 55 at step 5" in told
    assert remarks(_records([2.0 / step for step in range(1, 13)]), "sft") == []
    assert remarks(_records(flat), "grpo") == []
    assert remarks(_records(flat[:4]), "sft") == []


@given(
    start=st.floats(0.5, 12),
    noise=st.lists(st.floats(0.7, 1.4), min_size=5, max_size=200),
    share=st.floats(0.05, 1),
)
def test_a_loss_that_falls_and_wavers_never_counts_as_exploded(
    start: float, noise: list[float], share: float
) -> None:
    steps = len(noise)
    falling = [start * share ** (step / steps) * noise[step] for step in range(steps)]
    assert not exploded(falling)
    assert exploded([*falling, *[max(falling) * 10] * steps])


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.just(0.0), max_size=40))
def test_any_losses_are_judged(losses: list[float]) -> None:
    found = faults(_records(losses), "sft")
    if found is None:
        assert losses
        assert all(map(math.isfinite, losses))
    assert isinstance(
        remarks(_records([loss for loss in losses if math.isfinite(loss)]), "pt"), list
    )
