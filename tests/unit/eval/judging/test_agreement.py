from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.eval.judging.agreement import (
    alpha_with_interval,
    kappa_with_interval,
    ordinal_alpha,
    weighted_kappa,
)

RATING = st.integers(1, 5)
TABLES = st.lists(
    st.dictionaries(st.sampled_from("abc"), RATING, max_size=3), min_size=2, max_size=12
)


@given(TABLES)
@settings(max_examples=100, deadline=None)
def test_alpha_is_the_krippendorff_packages(ratings: list[dict[str, int]]) -> None:
    data = [[row.get(rater, np.nan) for row in ratings] for rater in "abc"]
    given_twice = [row for row in ratings if len(row) > 1]
    if len({value for row in given_twice for value in row.values()}) < 2:
        assert ordinal_alpha(ratings) is None
        return
    theirs = krippendorff.alpha(
        reliability_data=data, level_of_measurement="ordinal", value_domain=[1, 2, 3, 4, 5]
    )
    assert ordinal_alpha(ratings) == pytest.approx(theirs, abs=1e-9)


@given(st.lists(st.tuples(RATING, RATING), min_size=1, max_size=30))
def test_quadratic_kappa_is_one_less_the_share_of_squared_distance(
    pairs: list[tuple[int, int]],
) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    by_chance = np.mean([(a - b) ** 2 for a in first for b in second])
    found = weighted_kappa(first, second)
    if by_chance == 0:
        assert found is None
    else:
        seen = np.mean([(a - b) ** 2 for a, b in pairs])
        assert found == pytest.approx(1 - seen / by_chance)


def test_full_agreement_is_one_opposite_is_negative_and_chance_is_near_nothing() -> None:
    assert weighted_kappa([1, 3, 5], [1, 3, 5]) == 1
    assert (weighted_kappa([1, 3, 5], [5, 3, 1]) or 0) < 0
    draw = np.random.default_rng(1)
    first, second = draw.integers(1, 6, 3000).tolist(), draw.integers(1, 6, 3000).tolist()
    assert abs(weighted_kappa(first, second) or 1) < 0.06


def test_the_intervals_hold_the_value_and_shrink_with_more_answers() -> None:
    draw = np.random.default_rng(2)
    people = draw.integers(1, 6, 400)
    judge = np.clip(people + draw.integers(-1, 2, 400), 1, 5)
    few = kappa_with_interval(people[:30].tolist(), judge[:30].tolist())
    many = kappa_with_interval(people.tolist(), judge.tolist())
    for found in (few, many):
        assert found.interval is not None and found.value is not None
        assert found.interval.low <= found.value <= found.interval.high
    assert few.interval and many.interval
    assert many.interval.high - many.interval.low < few.interval.high - few.interval.low
    rows = [{"a": int(a), "b": int(b)} for a, b in zip(people, judge, strict=True)]
    alpha = alpha_with_interval(rows)
    assert alpha.value is not None and alpha.interval is not None
    assert alpha.interval.low <= alpha.value <= alpha.interval.high
    assert alpha_with_interval(rows[:1]).interval is None
