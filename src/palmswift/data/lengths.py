"""How long rows are: percentiles and histogram, from the number of rows of each length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import ceil

from palmswift.data.report import Bin, Spread, TokenReport

Lengths = Counter[int]
"""Length in tokens to the number of rows that have it: exact, and small however many rows."""

BINS = 40
_ROOM = 1.5
"""How far past the 99th percentile a histogram goes before the rest is put into one bin."""


def token_report(
    tokens: Lengths, supervised: Lengths, over_length: Lengths, max_length: int | None
) -> TokenReport | None:
    """What the template counted; None when no row was written."""
    if not tokens:
        return None
    return TokenReport(
        tokens=spread(tokens),
        supervised=spread(supervised),
        histogram=histogram(tokens, over_length, max_length),
        over_length=spread(over_length) if over_length else None,
    )


def spread(lengths: Lengths) -> Spread:
    """Least, percentiles by nearest rank, most, and sum of at least one length."""
    median, p90, p95, p99 = _percentiles(lengths, (0.5, 0.9, 0.95, 0.99))
    return Spread(
        min=min(lengths),
        median=median,
        p90=p90,
        p95=p95,
        p99=p99,
        max=max(lengths),
        total=sum(length * count for length, count in lengths.items()),
    )


def histogram(kept: Lengths, over_length: Lengths, max_length: int | None = None) -> list[Bin]:
    """At most 40 bins of equal width from 0 on, and one open bin if few rows are far longer.

    The equal bins reach 1.5 times the 99th percentile, and `max_length` if that is near; without
    longer rows they end at the longest.
    """
    every = kept + over_length
    longest = max(every)
    (p99,) = _percentiles(every, (0.99,))
    reach = max(ceil(_ROOM * p99), max_length or 0 if (max_length or 0) <= 2 * p99 else 0)
    end = min(longest, reach)
    width = end // BINS + 1
    full = end // width + 1
    kept_bins, over_bins = _binned(kept, width, full), _binned(over_length, width, full)
    closed = [
        Bin(
            start=number * width,
            stop=(number + 1) * width,
            kept=kept_bins[number],
            over_length=over_bins[number],
        )
        for number in range(full)
    ]
    rest = Bin(start=full * width, stop=None, kept=kept_bins[full], over_length=over_bins[full])
    return [*closed, rest] if longest >= rest.start else closed


def _binned(lengths: Lengths, width: int, full: int) -> Counter[int]:
    bins: Counter[int] = Counter()
    for length, count in lengths.items():
        bins[min(length // width, full)] += count
    return bins


def _percentiles(lengths: Mapping[int, int], shares: tuple[float, ...]) -> list[int]:
    """The lengths that `shares` (rising) of the rows do not exceed."""
    rows = sum(lengths.values())
    ranks = [max(1, ceil(share * rows)) for share in shares]
    running = _running(lengths)
    length, reached = next(running)
    found = []
    for rank in ranks:
        while reached < rank:
            length, reached = next(running)
        found.append(length)
    return found


def _running(lengths: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    reached = 0
    for length in sorted(lengths):
        reached += lengths[length]
        yield length, reached
