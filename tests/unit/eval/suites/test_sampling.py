from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support_eval import arithmetic

from palmswift.eval.suites.sampling import select

CASES = [
    case.model_copy(update={"id": f"{tag}-{case.id}"})
    for tag, count in (("large", 80), ("small", 15), ("tiny", 2))
    for case in arithmetic(count, tag)
]


@given(st.integers(1, 97), st.integers(1, 97), st.integers(0, 50))
@settings(max_examples=50)
def test_a_smaller_selection_is_part_of_a_larger_one(a: int, b: int, seed: int) -> None:
    small, large = sorted((a, b))
    few = [case.id for case in select(CASES, small, seed)]
    many = [case.id for case in select(CASES, large, seed)]
    assert len(few) == small
    assert set(few) <= set(many)


@given(st.integers(3, 97), st.integers(0, 50))
@settings(max_examples=50)
def test_every_tag_is_in_it_nearly_in_proportion(size: int, seed: int) -> None:
    chosen = select(CASES, size, seed)
    share = {tag: sum(tag in case.tags for case in chosen) for tag in ("large", "small", "tiny")}
    assert all(share.values())
    assert abs(share["large"] - size * 80 / 97) <= 3


def test_the_order_is_the_suites_own_and_the_seed_decides_the_choice() -> None:
    chosen = select(CASES, 20, seed=1)
    assert [CASES.index(case) for case in chosen] == sorted(CASES.index(case) for case in chosen)
    assert chosen == select(CASES, 20, seed=1)
    assert chosen != select(CASES, 20, seed=2)
    assert select(CASES, None) == CASES
    assert select(CASES, 1000) == CASES
