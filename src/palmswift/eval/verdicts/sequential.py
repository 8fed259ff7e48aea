"""A test that may be looked at after every case and stopped when it is decided, at valid error.

The evidence is a bet: who starts with 1 and stakes a share of it on each case's difference cannot
be expected to gain if the two models are equal, so it reaches 20 with a chance of at most 1 in 20,
however often one looks (Ville 1939; Waudby-Smith and Ramdas 2024). Stakes of all sizes, on both
sides, are averaged; for single passes and fails the average is the beta mixture of a fair coin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from palmswift.eval.verdicts.distributions import Floats

_STAKES = 64
"""Gauss-Legendre nodes on (-1, 1): the average over them is exact up to 127 differing cases."""


class Evidence(NamedTuple):
    """The state of a sequential test."""

    value: float
    """What the bet has come to; null hypothesis: no difference."""
    p: float
    """The always-valid p: 1 over the most that the bet ever came to."""
    decided_at: int | None
    """After how many cases it was decided; None: not yet."""


def evidence(differences: Floats, alpha: float = 0.05, *, largest: float = 1.0) -> Evidence:
    """The evidence for a difference in a sequence of per-case differences, in order of asking.

    `largest` is how far a difference can go; ValueError for one that goes further.
    """
    import numpy as np

    scaled = np.asarray(differences, dtype=float) / largest
    if not len(scaled):
        return Evidence(1.0, 1.0, None)
    if np.abs(scaled).max() > 1 + 1e-9:
        raise ValueError(f"a difference is larger than {largest:g}")
    stakes, weights = np.polynomial.legendre.leggauss(_STAKES)
    wealth = np.cumsum(np.log1p(np.outer(np.clip(scaled, -1, 1), stakes)), axis=0)
    highest = wealth.max(axis=1)
    # Averaged in logarithms: a bet on a long lead is larger than a float can hold.
    total = np.log(np.exp(wealth - highest[:, None]) @ (weights / 2)) + highest
    best = np.maximum.accumulate(total)
    reached = np.flatnonzero(best >= -np.log(alpha))
    return Evidence(
        value=float(np.exp(min(700.0, total[-1]))),
        p=min(1.0, float(np.exp(-best[-1]))),
        decided_at=int(reached[0]) + 1 if len(reached) else None,
    )
