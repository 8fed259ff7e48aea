"""Percentile intervals of any statistic, by drawing units again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palmswift.eval.verdicts.resample import bootstrap, mean_interval


def test_the_interval_of_a_mean_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(3).normal(2, 1, 60)
    found = mean_interval(list(values), draws=20_000)
    wanted = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=4
    ).confidence_interval
    assert found is not None
    assert tuple(found) == pytest.approx(tuple(wanted), abs=0.02)
    assert found == mean_interval(list(values), draws=20_000), "the same each time"


def test_what_is_mostly_undefined_has_no_interval_and_a_few_gaps_do_no_harm() -> None:
    assert bootstrap(40, lambda drawn: None) is None
    assert bootstrap(40, lambda drawn: float(drawn[0]) if drawn[0] < 15 else None) is None
    gaps = bootstrap(40, lambda drawn: 1.0 if drawn[0] else None)
    assert gaps is not None and tuple(gaps) == (1.0, 1.0)


def test_too_few_units_have_no_interval() -> None:
    assert mean_interval([1.0]) is None
