from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from palmswift.eval.verdicts import power
from palmswift.eval.verdicts.significance import mcnemar_p


def brute_power(n: int, effect: float, differing: float, alpha: float) -> float:
    """McNemar's power as the sum over all tables of three cells."""
    p10, p01 = (differing + effect) / 2, (differing - effect) / 2
    total = 0.0
    for gained in range(n + 1):
        for lost in range(n + 1 - gained):
            if mcnemar_p(gained, lost) <= alpha:
                cells = [gained, lost, n - gained - lost]
                total += stats.multinomial.pmf(cells, n, [p10, p01, 1 - p10 - p01])
    return total


@pytest.mark.parametrize(
    ("n", "effect", "differing", "alpha"),
    [(20, 0.3, 0.5, 0.05), (30, 0.1, 0.1, 0.05), (25, 0.4, 0.4, 0.01), (12, 0.0, 0.6, 0.05)],
)
def test_mcnemars_power_is_the_sum_over_all_tables(
    n: int, effect: float, differing: float, alpha: float
) -> None:
    wanted = brute_power(n, effect, differing, alpha)
    assert power.mcnemar_power(n, effect, differing, alpha) == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 90), st.floats(0.01, 0.4))
def test_the_cases_needed_are_where_the_power_is_reached(percent: int, effect: float) -> None:
    differing = max(effect, percent / 100)
    n = power.mcnemar_cases(effect, differing)
    assert n is not None
    if n <= 20_000:
        assert power.mcnemar_power(n, effect, differing) >= 0.8
        assert power.mcnemar_power(n - 1, effect, differing) < 0.8


def test_the_cases_needed_lie_near_connors_formula() -> None:
    effect, differing = 0.03, 0.2
    z_alpha, z_power = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
    connor = (z_alpha * math.sqrt(differing) + z_power * math.sqrt(differing - effect**2)) ** 2
    found = power.mcnemar_cases(effect, differing)
    assert found == pytest.approx(connor / effect**2, rel=0.05)
    assert power.mcnemar_cases(0.0005, 0.5) is None, "over a million"
    assert power.mcnemar_cases(0.002, 0.5) == math.ceil(
        (z_alpha * math.sqrt(0.5) + z_power * math.sqrt(0.5 - 0.002**2)) ** 2 / 0.002**2
    )


@pytest.mark.parametrize("n", [10, 60, 400])
def test_the_smallest_visible_difference_has_the_power_and_a_smaller_one_not(n: int) -> None:
    least = power.mcnemar_visible(n, 0.2)
    assert least is not None
    assert power.mcnemar_power(n, least, 0.2) >= 0.8 > power.mcnemar_power(n, least - 2e-4, 0.2)


def test_five_cases_show_nothing_and_no_difference_has_no_power() -> None:
    assert power.mcnemar_visible(5, 0.5) is None
    assert power.mcnemar_power(50, 0.0, 0.0) == 0.0
    assert power.mcnemar_power(5, 1.0, 1.0) == 0.0
    assert power.mcnemar_power(6, 1.0, 1.0) == 1.0


@pytest.mark.parametrize(("n", "effect", "spread"), [(20, 0.2, 0.3), (100, 0.05, 0.2)])
def test_the_power_of_means_lies_near_the_noncentral_t(
    n: int, effect: float, spread: float
) -> None:
    shift = effect * math.sqrt(n) / spread
    critical = stats.t.ppf(0.975, n - 1)
    exact = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert power.mean_power(n, effect, spread) == pytest.approx(exact, abs=0.02)


@given(st.floats(0.01, 0.5), st.floats(0.05, 0.6))
def test_the_cases_a_mean_needs_are_the_least(effect: float, spread: float) -> None:
    n = power.mean_cases(effect, spread)
    assert n is not None
    assert power.mean_power(n, effect, spread) >= 0.8
    assert n == 2 or power.mean_power(n - 1, effect, spread) < 0.8
    least = power.mean_visible(n, spread)
    assert least is not None and least <= effect + 1e-9


def test_means_of_nothing_and_of_equal_differences() -> None:
    assert power.mean_visible(1, 0.3) is None
    assert power.mean_visible(10, 0.0) == 0.0
    assert power.mean_power(1, 0.1, 0.1) == 0.0
    assert power.mean_power(5, 0.1, 0.0) == 1.0
    assert power.mean_power(5, 0.0, 0.0) == 0.0
    assert power.mean_cases(0.0001, 1.0) is None
    assert power.mean_cases(0.1, 0.0) == 2


def test_what_is_expected_to_differ_is_never_nothing() -> None:
    assert power.expected_differing(0, 0, 98) == 0.01
    assert power.expected_differing(10, 5, 98) == 0.16
    assert power.spread_of(np.array([1.0])) == 0.0
    assert power.spread_of(np.array([0.0, 1.0])) == pytest.approx(math.sqrt(0.5))
