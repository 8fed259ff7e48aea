"""How far raters agree: weighted kappa of two, Krippendorff's alpha of any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from palmswift.eval.verdicts.resample import Interval, bootstrap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRUSTED = 0.4
"""Below this weighted kappa with people a judge cannot decide a gate: under "moderate" of Landis
and Koch 1977."""
RATINGS = (1, 2, 3, 4, 5)


class Agreement(NamedTuple):
    """A coefficient: 1 is full agreement, 0 what chance gives."""

    value: float | None
    """None: undefined, since there is too little or all ratings are the same."""
    interval: Interval | None
    """95%, by drawing the answers again."""
    n: int
    """How many answers both (or at least two) have rated."""


def weighted_kappa(
    first: Sequence[int], second: Sequence[int], scale: Sequence[int] = RATINGS
) -> float | None:
    """Cohen's kappa with quadratic weights (Cohen 1968), of two raters on the same answers.

    None: no answers, or both gave one and the same rating throughout, where it is undefined.
    """
    table = _confusion(first, second, scale)
    return _kappa(table)


def kappa_with_interval(
    first: Sequence[int], second: Sequence[int], scale: Sequence[int] = RATINGS
) -> Agreement:
    """`weighted_kappa` with its interval."""
    import numpy as np

    a, b = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    interval = bootstrap(len(a), lambda drawn: _kappa(_confusion(a[drawn], b[drawn], scale)))
    return Agreement(weighted_kappa(first, second, scale), interval, len(a))


def _confusion(
    first: Sequence[int] | NDArray[np.int_],
    second: Sequence[int] | NDArray[np.int_],
    scale: Sequence[int],
) -> NDArray[np.float64]:
    import numpy as np

    size = len(scale)
    rows = np.searchsorted(scale, np.asarray(first, dtype=int))
    columns = np.searchsorted(scale, np.asarray(second, dtype=int))
    counts = np.bincount(rows * size + columns, minlength=size * size)
    return counts.reshape(size, size).astype(np.float64)


def _kappa(table: NDArray[np.float64]) -> float | None:
    import numpy as np

    total = table.sum()
    if not total:
        return None
    steps = np.arange(len(table))
    weights = (steps[:, None] - steps[None, :]) ** 2.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    by_chance = float((weights * expected).sum())
    if not by_chance:
        return None
    return 1 - float((weights * table).sum()) / by_chance


def ordinal_alpha(
    ratings: Sequence[Mapping[str, int]], scale: Sequence[int] = RATINGS
) -> float | None:
    """Krippendorff's alpha for ordinal data (Krippendorff 2011).

    `ratings` has one map rater -> rating for each answer; raters may be missing. Answers with fewer
    than two ratings do not count. None: no such answer, or all ratings the same.
    """
    return _alpha(_coincidences(ratings, scale).sum(axis=0))


def alpha_with_interval(
    ratings: Sequence[Mapping[str, int]], scale: Sequence[int] = RATINGS
) -> Agreement:
    """`ordinal_alpha` with its interval."""
    pairable = [rating for rating in ratings if len(rating) > 1]
    tables = _coincidences(pairable, scale)
    interval = bootstrap(len(pairable), lambda drawn: _alpha(tables[drawn].sum(axis=0)))
    return Agreement(_alpha(tables.sum(axis=0)), interval, len(pairable))


def _coincidences(
    ratings: Sequence[Mapping[str, int]], scale: Sequence[int]
) -> NDArray[np.float64]:
    """For each answer, how often each pair of ratings stands together; (answers, size, size)."""
    import numpy as np

    size = len(scale)
    tables = np.zeros((len(ratings), size, size))
    for table, given in zip(tables, ratings, strict=True):
        if len(given) < 2:
            continue
        counts = np.bincount(np.searchsorted(scale, list(given.values())), minlength=size).astype(
            np.float64
        )
        table += (np.outer(counts, counts) - np.diag(counts)) / (len(given) - 1)
    return tables


def _alpha(coincidences: NDArray[np.float64]) -> float | None:
    import numpy as np

    marginals = coincidences.sum(axis=1)
    total = marginals.sum()
    if total < 2:
        return None
    # The distance of two ranks: all ratings between them, and half of those on them, squared.
    running = np.cumsum(marginals) - marginals / 2
    distance = (running[:, None] - running[None, :]) ** 2
    expected = float((np.outer(marginals, marginals) * distance).sum())
    if not expected:
        return None
    return 1 - float(total - 1) * float((coincidences * distance).sum()) / expected
