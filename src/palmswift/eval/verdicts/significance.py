"""Whether two models differ on the same cases: exact paired tests, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from palmswift.eval.verdicts.distributions import binomial_pmf

if TYPE_CHECKING:
    from palmswift.eval.verdicts.distributions import Floats

_FLIPS = 20_000
"""Random sign flips where all of them are too many; the smallest p is then 1 in so many."""
_ENUMERATED = 16
"""Up to so many cases that differ, all sign flips are counted."""
_LATTICE = 64
"""Differences that are multiples of 1/R, R up to this, have their flips counted by convolution."""
_SAME = 1e-9
"""Relative: sums this close are equal, since they were added in different orders."""


class Paired(NamedTuple):
    """Per-case differences of one measure, and what they are made of."""

    differences: Floats
    """One a case: the mean over its repeats at the second model less that at the first."""
    binary: bool
    """Whether each is of one pass or fail at each model, so that it is -1, 0 or 1."""

    @property
    def n(self) -> int:
        """How many cases."""
        return len(self.differences)

    @property
    def gained(self) -> int:
        """Cases at which the second model does better."""
        return int((self.differences > 0).sum())

    @property
    def lost(self) -> int:
        """Cases at which the second model does worse."""
        return int((self.differences < 0).sum())


def mcnemar_p(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test: `gained` against `lost` as a fair coin's."""
    m = gained + lost
    tail = math.fsum(binomial_pmf(m, 0.5)[: min(gained, lost) + 1])
    return min(1.0, 2 * tail)


def sign_flip_p(differences: Floats, seed: int = 0) -> float:
    """Two-sided p that the mean difference is 0, when each case's could as well have been swapped.

    Valid for cases with several repeats, since the case is what is flipped. Exact where the flips
    can all be counted (few cases that differ, or shares of few repeats), else by 20,000 random
    flips. Equals McNemar's exact p for single passes and fails.
    """
    import numpy as np

    found = differences[np.abs(differences) > 0]
    if not len(found):
        return 1.0
    observed = abs(float(found.sum())) * (1 - _SAME)
    steps = _lattice(found)
    if steps is not None:
        return _convolved_p(steps)
    if len(found) <= _ENUMERATED:
        sums = np.zeros(1)
        for value in found:
            sums = np.concatenate((sums - value, sums + value))
        return float((np.abs(sums) >= observed).mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for _ in range(10):
        signs = generator.integers(0, 2, (_FLIPS // 10, len(found)), dtype=np.int8)
        extreme += int((np.abs((2.0 * signs - 1) @ found) >= observed).sum())
    return (extreme + 1) / (_FLIPS + 1)


def paired_p(pairs: Paired) -> float:
    """The p of the paired test that suits the differences: McNemar's, or the sign flips'."""
    if pairs.binary:
        return mcnemar_p(pairs.gained, pairs.lost)
    return sign_flip_p(pairs.differences)


def _lattice(found: Floats) -> list[int] | None:
    """The differences as whole numbers of 1/R for the least R that fits; None without one."""
    import numpy as np

    for repeats in range(1, _LATTICE + 1):
        steps = found * repeats
        whole = np.rint(steps)
        if np.abs(steps - whole).max() < _SAME:
            return [int(step) for step in whole]
    return None


def _convolved_p(steps: Sequence[int]) -> float:
    """As `sign_flip_p`, with the exact distribution of the sum of +-steps."""
    import numpy as np

    total = sum(map(abs, steps))
    chance = np.zeros(2 * total + 1)
    chance[total] = 1.0
    for step in map(abs, steps):
        chance = 0.5 * (np.roll(chance, step) + np.roll(chance, -step))
    observed = abs(sum(steps))
    sums = np.arange(-total, total + 1)
    return min(1.0, math.fsum(chance[np.abs(sums) >= observed]))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for being several, by Holm's step-down method, in the same order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
