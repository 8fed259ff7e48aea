from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from palmswift.eval.verdicts.intervals import (
    Interval,
    bootstrap_interval,
    paired_interval,
    proportion_interval,
    tango_interval,
)
from palmswift.eval.verdicts.significance import Paired


def score_z(gained: int, lost: int, n: int, difference: float) -> float:
    """The score statistic with the nuisance found by scipy's optimiser, not by the formula."""
    low, high = max(0.0, -difference), (1 - difference) / 2

    def loss(p21: float) -> float:
        cells = (
            (gained, p21 + difference),
            (lost, p21),
            (n - gained - lost, 1 - 2 * p21 - difference),
        )
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    p21 = float(
        optimize.minimize_scalar(
            loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13}
        ).x
    )
    variance = n * (2 * p21 + difference - difference**2)
    return (gained - lost - n * difference) / math.sqrt(variance)


@pytest.mark.parametrize(
    ("gained", "lost", "n"), [(12, 2, 50), (3, 9, 40), (1, 1, 12), (30, 20, 300), (5, 1, 10)]
)
def test_tangos_ends_are_where_an_independent_score_test_turns(
    gained: int, lost: int, n: int
) -> None:
    z = float(stats.norm.ppf(0.975))
    low, high = tango_interval(gained, lost, n)
    assert score_z(gained, lost, n, low) == pytest.approx(z, abs=1e-4)
    assert score_z(gained, lost, n, high) == pytest.approx(-z, abs=1e-4)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60))
def test_tangos_interval_has_the_estimate_in_it_and_mirrors(
    gained: int, lost: int, same: int
) -> None:
    n = gained + lost + same
    if n == 0:
        return
    low, high = tango_interval(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    mirrored = tango_interval(lost, gained, n)
    assert (mirrored.low, mirrored.high) == pytest.approx((-high, -low), abs=1e-9)
    narrower = tango_interval(gained, lost, n, 0.8)
    assert low <= narrower.low + 1e-12 and narrower.high <= high + 1e-12


def test_no_difference_in_a_few_cases_leaves_a_wide_interval() -> None:
    low, high = tango_interval(0, 0, 10)
    assert low == pytest.approx(-high) and high == pytest.approx(0.2775, abs=1e-3)
    assert tango_interval(10, 0, 10).high == 1.0
    assert tango_interval(0, 10, 10).low == -1.0


def test_the_bootstrap_is_scipys_bca_where_cases_are_many() -> None:
    values = np.random.default_rng(5).gamma(0.8, 0.3, 2000) - 0.1
    found = bootstrap_interval(values)
    wanted = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, random_state=np.random.default_rng(1)
    ).confidence_interval
    width = wanted.high - wanted.low
    assert found.low == pytest.approx(wanted.low, abs=0.05 * width)
    assert found.high == pytest.approx(wanted.high, abs=0.05 * width)
    assert found == bootstrap_interval(values), "the same each time"


def test_the_bootstrap_of_a_few_skewed_cases_holds_students_interval() -> None:
    values = np.array([0.0] * 12 + [0.4, 0.9, 0.1])
    low, high = bootstrap_interval(values)
    student = stats.t.interval(0.95, 14, values.mean(), stats.sem(values))
    assert low <= student[0] + 1e-12 and high >= student[1] - 1e-12
    assert high > student[1], "the long tail is on the right"


def test_the_bootstraps_levels_are_widened_for_small_n_as_students_t_is() -> None:
    values = np.array([0.0, 0.02, 0.05, 0.1, 0.1, 0.12, 0.2, 0.25, 0.3, 0.5, 0.8, 1.0]) * 0.5
    n = len(values)
    wide = 2 * stats.norm.cdf(stats.t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1))) - 1
    wanted = stats.bootstrap(
        (values,),
        np.mean,
        method="BCa",
        confidence_level=wide,
        n_resamples=100_000,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    high = bootstrap_interval(values).high
    assert high == pytest.approx(wanted.high, abs=0.02 * (wanted.high - values.mean()))


def test_equal_differences_leave_what_may_not_have_been_seen() -> None:
    for n in (1, 5, 30):
        unseen = 1 - 0.025 ** (1 / n)
        assert bootstrap_interval(np.zeros(n)) == pytest.approx(Interval(-unseen, unseen))
    assert bootstrap_interval(np.ones(40)).high == 1.0
    assert bootstrap_interval(np.zeros(30), largest=100.0).high == pytest.approx(
        100 * (1 - 0.025 ** (1 / 30))
    )


def test_no_case_leaves_everything_open() -> None:
    assert paired_interval(Paired(np.array([]), True)) == Interval(-1.0, 1.0)
    assert paired_interval(Paired(np.array([]), False), largest=4.0) == Interval(-4.0, 4.0)


def test_passes_get_tangos_and_scores_the_bootstraps_interval() -> None:
    values = np.array([1.0, 0.0, -1.0, 1.0] * 5)
    assert paired_interval(Paired(values, True)) == tango_interval(10, 5, 20)
    assert paired_interval(Paired(values, False)) == bootstrap_interval(values)


@given(st.integers(0, 200), st.integers(1, 200))
def test_a_shares_interval_is_wilsons(count: int, more: int) -> None:
    n = count + more
    low, high = proportion_interval(count, n)
    wanted = stats.binomtest(count, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert proportion_interval(0, 0) == Interval(0.0, 1.0)
