from __future__ import annotations

from collections import Counter
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from palmswift.data.lengths import BINS, histogram, spread

lengths = st.lists(st.integers(min_value=0, max_value=100_000), max_size=40)


@given(values=lengths.filter(bool))
def test_the_spread_has_nearest_ranks(values: list[int]) -> None:
    ordered = sorted(values)
    found = spread(Counter(values))
    for share, value in ((0.5, found.median), (0.9, found.p90), (0.99, found.p99)):
        assert value == ordered[ceil(share * len(values)) - 1]
    assert (found.min, found.max, found.total) == (ordered[0], ordered[-1], sum(values))


@given(kept=lengths, over=lengths, limit=st.none() | st.integers(1, 200_000))
def test_every_length_is_in_the_one_bin_that_holds_it(
    kept: list[int], over: list[int], limit: int | None
) -> None:
    if not kept and not over:
        return
    bins = histogram(Counter(kept), Counter(over), limit)
    assert len(bins) <= BINS + 1
    assert [part.start for part in bins[1:]] == [part.stop for part in bins[:-1]]
    for values, name in ((kept, "kept"), (over, "over_length")):
        for part in bins:
            held = [v for v in values if part.start <= v and (part.stop is None or v < part.stop)]
            assert getattr(part, name) == len(held)
        assert sum(getattr(part, name) for part in bins) == len(values)


def test_one_very_long_row_does_not_squeeze_the_others_into_one_bin() -> None:
    bins = histogram(Counter({**dict.fromkeys(range(1, 301), 1), 1_000_000: 1}), Counter())
    assert sum(part.kept > 0 for part in bins) > 20
    assert (bins[-1].stop, bins[-1].kept) == (None, 1)
