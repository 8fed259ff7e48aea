"""Confidence intervals of a mean paired difference that keep their promise at small n too.

benchmarks/eval_statistics simulates how often each covers the truth; its record has the rates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from palmswift.eval.verdicts.distributions import (
    bisect,
    normal_cdf,
    normal_quantile,
    t_quantile,
)
from palmswift.eval.verdicts.significance import Paired

if TYPE_CHECKING:
    from palmswift.eval.verdicts.distributions import Floats

_RESAMPLES = 10_000
_FEW = 50
"""With fewer cases that differ, the bootstrap's idea of the skew is not to be trusted alone."""
_CELLS = 2_000_000
"""Resampled values held at a time: 16 MB."""


class Interval(NamedTuple):
    """Both ends."""

    low: float
    high: float


def paired_interval(
    pairs: Paired, confidence: float = 0.95, *, largest: float = 1.0, seed: int = 0
) -> Interval:
    """The interval of the mean difference that suits the differences.

    Single passes and fails: Tango's score interval. Anything else: the bootstrap over cases.
    `largest` is how far a difference can go, for the case that none differs.
    """
    if pairs.n == 0:
        return Interval(-largest, largest)
    if pairs.binary:
        return tango_interval(pairs.gained, pairs.lost, pairs.n, confidence)
    return bootstrap_interval(pairs.differences, confidence, largest=largest, seed=seed)


def tango_interval(gained: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """Tango's score interval (1998) for the difference of two paired proportions, n >= 1.

    It covers near its level from n = 10 on and does not collapse when no case differs, unlike the
    interval of the normal approximation.
    """
    z = normal_quantile(0.5 + confidence / 2)
    estimate = (gained - lost) / n
    low = bisect(lambda d: _tango_z(gained, lost, n, d) <= z, -1.0, estimate)
    high = bisect(lambda d: _tango_z(gained, lost, n, d) <= -z, estimate, 1.0)
    return Interval(low if gained + n > lost else -1.0, high)


def _tango_z(gained: int, lost: int, n: int, difference: float) -> float:
    """The score statistic of a true difference, falling in it; nuisance by maximum likelihood."""
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    discordant = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * discordant + difference * (1 - difference))
    distance = gained - lost - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def bootstrap_interval(
    differences: Floats, confidence: float = 0.95, *, largest: float = 1.0, seed: int = 0
) -> Interval:
    """The BCa bootstrap interval of the mean, resampling whole cases (so repeats stay together).

    Its levels are widened for small n as Hesterberg (2015) does, by Student's t. With fewer than
    50 cases that differ it is joined with Student's interval: each of the two fails on its own
    kind of rare differences. When all differences are equal, the ends are as far off as a share of
    cases could still differ unseen.
    """
    import numpy as np

    n = len(differences)
    mean = float(differences.mean())
    spread = float(differences.std())
    if spread <= 1e-12 * max(1.0, abs(mean)):
        unseen = largest * (1 - ((1 - confidence) / 2) ** (1 / n))
        return Interval(max(-largest, mean - unseen), min(largest, mean + unseen))
    t = t_quantile(0.5 + confidence / 2, n - 1)
    low, high = _bca(differences, mean, t * math.sqrt(n / (n - 1)), seed)
    if np.count_nonzero(differences) < _FEW:
        half = t * spread / math.sqrt(n - 1)
        low, high = min(low, mean - half), max(high, mean + half)
    return Interval(max(-largest, low), min(largest, high))


def _bca(differences: Floats, mean: float, z: float, seed: int) -> tuple[float, float]:
    """The bootstrap quantiles at the levels of -z and z, corrected for bias and acceleration."""
    import numpy as np

    means = _resampled_means(differences, seed)
    tolerance = 1e-12 * max(1.0, abs(mean))
    below = (means < mean - tolerance).mean() + 0.5 * (np.abs(means - mean) <= tolerance).mean()
    least = 1 / len(means)
    bias = normal_quantile(float(np.clip(below, least, 1 - least)))
    deviations = differences - mean
    # The jackknife's skewness; for a mean it has this closed form.
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    levels = [normal_cdf(bias + w / (1 - acceleration * w)) for w in (bias - z, bias + z)]
    low, high = np.quantile(means, levels)
    return float(low), float(high)


def _resampled_means(differences: Floats, seed: int) -> Floats:
    import numpy as np

    n = len(differences)
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // n)
    parts = [
        differences[generator.integers(0, n, (min(step, _RESAMPLES - start), n))].mean(axis=1)
        for start in range(0, _RESAMPLES, step)
    ]
    return np.concatenate(parts)


def proportion_interval(count: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a share; 0 to 1 for n = 0."""
    if n == 0:
        return Interval(0.0, 1.0)
    z = normal_quantile(0.5 + confidence / 2)
    centre = (count + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(count * (n - count) / n + z * z / 4)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
