from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palmswift.data.split import hold_out
from palmswift.errors import GateError

Integers = NDArray[np.int64]


def contents(count: int) -> NDArray[np.uint64]:
    """As many digests of rows; the same at every run."""
    return np.random.default_rng(7).integers(0, 2**63, count).astype(np.uint64)


def alone(count: int) -> Integers:
    """Groups of one row."""
    return np.arange(count)


def one_file(count: int) -> Integers:
    return np.zeros(count, np.int64)


grouped_rows = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=2, max_size=80
).filter(lambda rows: len({group for group, _ in rows}) > 1)


@given(
    rows=grouped_rows,
    ratio=st.floats(min_value=0.001, max_value=0.999),
    seed=st.integers(),
)
def test_no_side_is_empty_and_no_group_straddles(
    rows: list[tuple[int, int]], ratio: float, seed: int
) -> None:
    group, source = np.array(rows).T
    held = hold_out(group, source, contents(len(rows)), ratio, seed)
    assert 0 < held.sum() < len(rows)
    for number in np.unique(group):
        assert len(set(held[group == number].tolist())) == 1


@given(order=st.permutations(range(40)), rows=st.lists(st.integers(0, 9), min_size=40, max_size=40))
def test_the_same_rows_are_held_out_in_any_order(order: list[int], rows: list[int]) -> None:
    group = np.array(rows) if len(set(rows)) > 1 else alone(40)
    held = hold_out(group, one_file(40), contents(40), 0.2, 42)
    shuffled = hold_out(group[order], one_file(40), contents(40)[order], 0.2, 42)
    assert (held[order] == shuffled).all()


def test_another_seed_holds_out_other_rows() -> None:
    first, second = (hold_out(alone(200), one_file(200), contents(200), 0.5, n) for n in (1, 2))
    assert (first != second).any()
    assert first.sum() == second.sum() == 100


def test_rows_mostly_keep_their_side_when_others_come() -> None:
    digest = contents(2000)
    before = hold_out(alone(1000), one_file(1000), digest[:1000], 0.1, 42)
    after = hold_out(alone(2000), one_file(2000), digest, 0.1, 42)[:1000]
    assert (before != after).sum() < 30


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.37])
def test_each_source_gives_its_share(ratio: float) -> None:
    source = np.repeat([0, 1, 2], [700, 250, 50])
    held = hold_out(alone(1000), source, contents(1000), ratio, 42)
    assert held.sum() == round(1000 * ratio)
    for number, rows in enumerate((700, 250, 50)):
        assert abs(held[source == number].sum() - rows * ratio) < 1


def test_many_small_sources_give_their_share_together() -> None:
    source = np.repeat(np.arange(40), 5)
    held = hold_out(alone(200), source, contents(200), 0.05, 42)
    assert held.sum() == 10
    assert np.bincount(source[held]).max() == 1


def test_groups_that_are_too_large_for_the_share_are_passed_over() -> None:
    group = np.array([0] * 60 + list(range(1, 41)))
    held = hold_out(group, one_file(100), contents(100), 0.1, 42)
    assert held.sum() == 10 and not held[:60].any()


def test_the_smallest_group_is_held_out_when_none_fits() -> None:
    group = np.repeat([0, 1, 2], [30, 20, 50])
    held = hold_out(group, one_file(100), contents(100), 0.05, 42)
    assert group[held].tolist() == [1] * 20


def test_ratio_zero_holds_out_none() -> None:
    assert not hold_out(alone(1), one_file(1), contents(1), 0, 42).any()


def test_what_cannot_be_split_is_said() -> None:
    with pytest.raises(GateError, match="1 row is too few"):
        hold_out(alone(1), one_file(1), contents(1), 0.1, 42)
    with pytest.raises(GateError, match="all 9 rows ask the same or are nearly the same"):
        hold_out(np.zeros(9, np.int64), one_file(9), contents(9), 0.1, 42)
