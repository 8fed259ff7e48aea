"""The few probability distributions that the verdict needs, so that it runs without scipy.

tests/unit/eval/test_significance.py holds each to scipy's within 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_NORMAL = NormalDist()
_TINY = 1e-300


def normal_cdf(z: float) -> float:
    """P(Z <= z)."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def normal_quantile(p: float) -> float:
    """The z with P(Z <= z) = p, 0 < p < 1."""
    return _NORMAL.inv_cdf(p)


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    log_front = (
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
        - math.log(a)
    )
    return math.exp(log_front) / _continued_fraction(x, a, b)


def _continued_fraction(x: float, a: float, b: float) -> float:
    """The fraction's denominator (DLMF 8.17.22)."""
    value, upper, lower = 1.0, 1.0, 0.0
    for step in range(1, 100_000):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / (1 + term * lower or _TINY)
        upper = 1 + term / upper or _TINY
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return value


def t_cdf(t: float, degrees: float) -> float:
    """Student's P(T <= t)."""
    square = t * t
    if square < degrees:  # the tail's form would lose digits about the middle
        middle = 0.5 * beta_cdf(square / (degrees + square), 0.5, degrees / 2)
        return 0.5 + math.copysign(middle, t)
    tail = 0.5 * beta_cdf(degrees / (degrees + square), degrees / 2, 0.5)
    return tail if t < 0 else 1 - tail


@lru_cache(maxsize=1024)
def t_quantile(p: float, degrees: int) -> float:
    """Student's t with P(T <= t) = p, 0 < p < 1, by bisection."""
    if p < 0.5:
        return -t_quantile(1 - p, degrees)
    low, high = 0.0, 2.0
    while t_cdf(high, degrees) < p:
        low, high = high, high * 2
    return bisect(lambda t: t_cdf(t, degrees) >= p, low, high)


def bisect(reached: Callable[[float], bool], low: float, high: float) -> float:
    """Where `reached` turns from false to true between `low` and `high`, to the last bit."""
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high
        if reached(middle):
            high = middle
        else:
            low = middle


def log_factorials(n: int) -> Floats:
    """log k! for k = 0..n at least."""
    return _log_factorials(max(4096, 1 << n.bit_length()))


@cache
def _log_factorials(size: int) -> Floats:
    import numpy as np

    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, size + 1)))))


def binomial_pmf(n: int, p: float) -> Floats:
    """P(X = k) for k = 0..n."""
    import numpy as np

    k = np.arange(n + 1)
    if p <= 0 or p >= 1:
        certain: Floats = (k == (0 if p <= 0 else n)).astype(float)
        return certain
    logs = log_factorials(n)[: n + 1]
    chance: Floats = np.exp(
        logs[n] - logs - logs[::-1] + k * math.log(p) + (n - k) * math.log1p(-p)
    )
    return chance
