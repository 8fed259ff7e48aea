from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_data import conversation, pair

from palmswift.data.row import Conversation
from palmswift.data.split import hold_out
from palmswift.errors import GateError


def rows(count: int) -> list[Conversation]:
    return [conversation(pair(f"q{number}", "a")) for number in range(count)]


@given(
    count=st.integers(min_value=2, max_value=60),
    ratio=st.floats(min_value=0.001, max_value=0.999),
    seed=st.integers(),
)
def test_every_row_is_on_one_side_and_no_side_is_empty(count: int, ratio: float, seed: int) -> None:
    given_rows = rows(count)
    train, val = hold_out(given_rows, ratio, seed)
    assert train and val
    assert sorted(row.digest for row in (*train, *val)) == sorted(row.digest for row in given_rows)


def test_the_same_rows_are_held_out_in_any_order() -> None:
    forward = {row.digest for row in hold_out(rows(50), 0.1, 42).val}
    backward = {row.digest for row in hold_out(rows(50)[::-1], 0.1, 42).val}
    assert forward == backward
    assert len(forward) == 5


def test_another_seed_holds_out_other_rows() -> None:
    first, second = ({r.digest for r in hold_out(rows(200), 0.5, seed).val} for seed in (1, 2))
    assert first != second


def test_either_side_keeps_the_order_of_the_rows() -> None:
    given_rows = rows(30)
    train, val = hold_out(given_rows, 0.3, 0)
    assert train == [row for row in given_rows if row in train]
    assert val == [row for row in given_rows if row in val]


def test_ratio_zero_holds_out_none_and_one_row_cannot_be_split() -> None:
    assert hold_out(rows(1), 0, 42).val == []
    with pytest.raises(GateError, match="too few"):
        hold_out(rows(1), 0.1, 42)
