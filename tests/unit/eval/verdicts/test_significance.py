"""The paired tests against scipy, and against each other where two of them mean the same."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from palmswift.eval.verdicts import distributions
from palmswift.eval.verdicts.significance import Paired, holm, mcnemar_p, paired_p, sign_flip_p


@given(st.floats(1e-6, 1 - 1e-6))
def test_the_normal_quantile_is_scipys(p: float) -> None:
    assert distributions.normal_quantile(p) == pytest.approx(stats.norm.ppf(p), abs=1e-9)
    z = distributions.normal_quantile(p)
    assert distributions.normal_cdf(z) == pytest.approx(p, abs=1e-12)


# scipy takes a |t| of 1e-9 for 0, where we give the half and t / pi more that it is.
@given(st.floats(-40, 40).filter(lambda t: t == 0 or abs(t) > 1e-6), st.integers(1, 5000))
def test_students_distribution_is_scipys(t: float, degrees: int) -> None:
    assert distributions.t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-9)


@given(st.floats(0.001, 0.999), st.integers(1, 2000))
def test_students_quantile_is_scipys(p: float, degrees: int) -> None:
    wanted = stats.t.ppf(p, degrees)
    assert distributions.t_quantile(p, degrees) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


# Nearer to 1 than this scipy's arcsine is 3e-9 off.
@given(st.floats(0, 1 - 1e-12), st.floats(0.5, 400), st.floats(0.5, 400))
def test_the_incomplete_beta_is_scipys(x: float, a: float, b: float) -> None:
    assert distributions.beta_cdf(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-9)


@given(st.integers(0, 3000), st.floats(0, 1).filter(lambda p: p == 0 or p > 1e-12))
def test_the_binomial_is_scipys(n: int, p: float) -> None:
    wanted = stats.binom.pmf(np.arange(n + 1), n, p)
    assert np.abs(distributions.binomial_pmf(n, p) - wanted).max() < 1e-9


def test_a_bisection_ends_at_the_last_bit() -> None:
    assert distributions.bisect(lambda x: x * x >= 2, 0.0, 2.0) == math.sqrt(2)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemars_p_is_that_of_scipys_binomial_test(gained: int, lost: int) -> None:
    wanted = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar_p(gained, lost) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_mcnemars_p_of_a_textbook_table() -> None:
    # Agresti, Categorical Data Analysis: 2 against 9 discordant pairs.
    assert mcnemar_p(2, 9) == pytest.approx(0.0654296875)
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(0, 5) == pytest.approx(0.0625), "five cases alone can never show anything"
    assert mcnemar_p(0, 6) == pytest.approx(0.03125)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 50))
def test_sign_flips_of_single_passes_are_mcnemars_test(gained: int, lost: int, same: int) -> None:
    differences = np.array([1.0] * gained + [-1.0] * lost + [0.0] * same)
    assert sign_flip_p(differences) == pytest.approx(mcnemar_p(gained, lost), abs=1e-12)
    assert paired_p(Paired(differences, True)) == mcnemar_p(gained, lost)


def brute(differences: list[float]) -> float:
    """The share of all sign flips that are at least as far from 0."""
    observed = abs(sum(differences))
    flips = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(flip >= observed - 1e-9 for flip in flips) / len(flips)


@settings(max_examples=30)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_flips_of_cases_with_repeats_are_counted_exactly(thirds: list[int]) -> None:
    differences = [third / 3 for third in thirds]
    assert sign_flip_p(np.array(differences)) == pytest.approx(brute(differences), abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=1, max_size=10))
def test_flips_of_few_scores_are_counted_exactly(differences: list[float]) -> None:
    assert sign_flip_p(np.array(differences)) == pytest.approx(brute(differences), abs=1e-9)


def test_flips_of_many_scores_come_near_the_t_test_and_are_the_same_each_time() -> None:
    differences = np.random.default_rng(3).normal(0.04, 0.3, 200)
    p = sign_flip_p(differences)
    assert p == sign_flip_p(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert sign_flip_p(np.full(200, 0.123456789)) == pytest.approx(1 / 20_001)
    assert sign_flip_p(np.zeros(5)) == 1.0


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holms_correction_is_the_step_down_one(values: list[float]) -> None:
    adjusted = holm(values)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for rank, index in enumerate(order):
        before = [(len(values) - r) * values[order[r]] for r in range(rank + 1)]
        assert adjusted[index] == min(1.0, max(before))


def test_holms_correction_of_a_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_pairing_counts_what_was_gained_and_lost() -> None:
    pairs = Paired(np.array([1.0, 0.0, -1.0, 0.5]), False)
    assert (pairs.n, pairs.gained, pairs.lost) == (4, 2, 1)
    assert paired_p(pairs) == sign_flip_p(pairs.differences)
