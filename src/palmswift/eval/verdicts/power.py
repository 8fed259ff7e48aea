"""What a test of n cases can see: its power, the cases that a difference needs, and the reverse."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from palmswift.eval.verdicts.distributions import (
    binomial_pmf,
    bisect,
    log_factorials,
    normal_cdf,
    normal_quantile,
    t_quantile,
)

if TYPE_CHECKING:
    from palmswift.eval.verdicts.distributions import Floats

_NEGLIGIBLE = 1e-12
"""Probability of numbers of differing cases that are left out of the sum."""
LARGEST_N = 1_000_000


def mcnemar_power(n: int, effect: float, differing: float, alpha: float = 0.05) -> float:
    """The chance that McNemar's exact test of n cases sees a true difference of `effect`.

    `differing`: the share of cases at which the two models differ, at least |effect|. Exact: summed
    over how many cases differ, with the rejection region of each number.
    """
    import numpy as np

    share = min(1.0, max(differing, abs(effect)))
    if share == 0:
        return 0.0
    better = (share + abs(effect)) / (2 * share)
    chance = binomial_pmf(n, share)
    total = 0.0
    for m in np.flatnonzero(chance > _NEGLIGIBLE):
        rejected = _critical(int(m), alpha)
        if rejected < 0:
            continue
        upper, lower = _tails(int(m), better, rejected)
        total += float(chance[m]) * (upper + lower)
    return min(1.0, total)


@lru_cache(maxsize=65536)
def _critical(m: int, alpha: float) -> int:
    """The largest k for which k against m - k is significant; -1 if none is."""
    import numpy as np

    return int((2 * np.cumsum(binomial_pmf(m, 0.5)[: m // 2 + 1]) <= alpha).sum()) - 1


def _tails(m: int, better: float, rejected: int) -> tuple[float, float]:
    """The chance of at most `rejected` losses, and of at most `rejected` gains, in m."""
    if better >= 1:
        return 1.0, 0.0
    logs = log_factorials(m)
    return (
        _lower_tail(logs, m, 1 - better, rejected),
        _lower_tail(logs, m, better, rejected),
    )


def _lower_tail(logs: Floats, m: int, p: float, k: int) -> float:
    """P(X <= k) of a binomial; terms 12 standard deviations below the mean are nothing."""
    import numpy as np

    reach = 12 * math.sqrt(m * p * (1 - p)) + 12
    if k > m * p + reach:
        return 1.0
    first = max(0, min(k, int(m * p - reach)))
    if k < m * p - reach:
        return 0.0
    j = np.arange(first, k + 1)
    terms = logs[m] - logs[j] - logs[m - j] + j * math.log(p) + (m - j) * math.log1p(-p)
    return float(np.exp(terms).sum())


@lru_cache(maxsize=1024)
def mcnemar_cases(
    effect: float, differing: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """The cases that McNemar's exact test needs to see `effect`; None above a million.

    From this n on down the power is below `power`, at this n it is reached.
    """
    share = max(differing, effect)
    z_alpha, z_power = normal_quantile(1 - alpha / 2), normal_quantile(power)
    # Connor (1987), which the exact number lies near.
    near = (z_alpha * math.sqrt(share) + z_power * math.sqrt(max(0.0, share - effect**2))) ** 2
    n = math.ceil(near / effect**2)
    if n > LARGEST_N:
        return None
    if n > 20_000:  # where the exact sum is slow it differs by less than one in a thousand
        return n

    def reached(cases: int) -> bool:
        return mcnemar_power(cases, effect, share, alpha) >= power

    # The exact test needs somewhat more than Connor's, about one case for each half of `effect`.
    low, high, step = max(1, n - 2), n + math.ceil(2 / effect), math.ceil(2 / effect)
    while not reached(high):
        low, high, step = high, high + step, 2 * step
    while low > 1 and reached(low):
        low, high = max(1, low - step), low
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return high


def mcnemar_visible(
    n: int, differing: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """The smallest true difference that n cases show with `power`; None: not even a whole one."""
    if mcnemar_power(n, 1.0, 1.0, alpha) < power:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        if mcnemar_power(n, middle, differing, alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def mean_power(n: int, effect: float, spread: float, alpha: float = 0.05) -> float:
    """The chance that a test of the mean of n differences with standard deviation `spread` sees
    `effect`, by Student's t with the normal approximation of its power."""
    if n < 2:
        return 0.0
    if spread == 0:
        return 1.0 if effect else 0.0
    shift = abs(effect) * math.sqrt(n) / spread
    critical = t_quantile(1 - alpha / 2, n - 1)
    return normal_cdf(shift - critical) + normal_cdf(-shift - critical)


def mean_cases(effect: float, spread: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The least n with which `mean_power` reaches `power`; None above a million."""
    n = ((normal_quantile(1 - alpha / 2) + normal_quantile(power)) * spread / effect) ** 2
    if n > LARGEST_N:
        return None
    count = max(2, math.floor(n))
    while mean_power(count, effect, spread, alpha) < power:
        count += 1
    return count


def mean_visible(n: int, spread: float, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest true difference of means that n cases show with `power`; None below 2 cases."""
    if n < 2:
        return None
    if spread == 0:
        return 0.0
    highest = spread * 1e3
    return bisect(lambda effect: mean_power(n, effect, spread, alpha) >= power, 0.0, highest)


def expected_differing(gained: int, lost: int, n: int) -> float:
    """The share of cases to expect to differ, from those seen; above 0 even when none did."""
    return (gained + lost + 1) / (n + 2)


def spread_of(differences: Floats) -> float:
    """The standard deviation of the differences, 0 below two."""
    return float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
