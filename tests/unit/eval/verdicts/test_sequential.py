from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from palmswift.eval.verdicts.sequential import evidence


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_evidence_of_passes_is_the_beta_mixture_of_a_fair_coin(gained: int, lost: int) -> None:
    found = evidence(np.array([1.0] * gained + [-1.0] * lost))
    logged = special.betaln(gained + 1, lost + 1) + (gained + lost) * math.log(2)
    assert math.log(found.value) == pytest.approx(float(logged), abs=1e-8)


def test_it_is_decided_once_the_bet_has_reached_twenty_and_stays_so() -> None:
    ahead = np.array([1.0] * 9)
    found = evidence(ahead)
    assert [evidence(ahead[:n]).decided_at for n in range(1, 10)] == [None] * 7 + [8, 8]
    assert found.p == pytest.approx(1 / found.value)
    turned = evidence(np.concatenate((ahead, -ahead)))
    assert turned.decided_at == 8
    assert turned.value < 1 < 1 / turned.p
    assert evidence(np.ones(20), alpha=0.01).decided_at == 11


def test_cases_that_do_not_differ_change_nothing() -> None:
    assert evidence(np.zeros(50)).value == pytest.approx(1.0)
    mixed = np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    assert evidence(mixed).value == pytest.approx(evidence(np.ones(2)).value)
    assert evidence(np.array([])) == (1.0, 1.0, None)


def test_a_long_lead_is_no_overflow_and_scores_are_scaled() -> None:
    assert evidence(np.ones(20_000)).p < 1e-300
    assert evidence(np.full(30, 40.0), largest=100.0) == evidence(np.full(30, 0.4))
    with pytest.raises(ValueError, match="larger than 1"):
        evidence(np.array([1.5]))


def test_looking_after_every_case_is_wrong_in_at_most_one_of_twenty() -> None:
    draw = np.random.default_rng(11)
    wrong = 0
    for _ in range(400):
        sequence = draw.choice([1.0, -1.0, 0.0], 200, p=[0.2, 0.2, 0.6])
        wrong += evidence(sequence).decided_at is not None
    assert wrong / 400 <= 0.05


def test_a_real_difference_is_decided_early() -> None:
    draw = np.random.default_rng(12)
    stops = []
    for _ in range(200):
        sequence = draw.choice([1.0, -1.0, 0.0], 400, p=[0.3, 0.1, 0.6])
        stops.append(evidence(sequence).decided_at)
    decided = [stop for stop in stops if stop is not None]
    assert len(decided) >= 195
    assert sorted(decided)[len(decided) // 2] < 120
