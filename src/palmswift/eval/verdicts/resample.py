"""Intervals of a number by drawing its units again (percentile bootstrap)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWS = 2000
_FEWEST = 2
_LEVEL = 0.95
_USABLE = 0.5
"""Share of the draws that must have a value."""


class Interval(NamedTuple):
    """A 95% confidence interval."""

    low: float
    high: float


def bootstrap(
    units: int,
    statistic: Callable[[NDArray[np.int_]], float | None],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval | None:
    """The interval of `statistic`, which is given the indices of the units drawn (with repetition).

    The unit is what is independent of the others: a prompt with all its repeats, an answer with
    all its ratings. None: fewer than two units, or most draws have no value.
    """
    import numpy as np

    if units < _FEWEST:
        return None
    generator = np.random.default_rng(seed)
    found = [statistic(generator.integers(0, units, units)) for _ in range(draws)]
    values = [value for value in found if value is not None]
    if len(values) < _USABLE * draws:
        return None
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_interval(values: list[float], *, draws: int = DRAWS, seed: int = 0) -> Interval | None:
    """The interval of a mean."""
    import numpy as np

    array = np.asarray(values)
    return bootstrap(len(values), lambda drawn: float(array[drawn].mean()), draws=draws, seed=seed)
