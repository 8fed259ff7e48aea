"""Which rows are held out: decided by their content, so that their order does not matter."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from palmswift.errors import GateError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

_REMEDY = "give more rows, a validation file (--val), or data.val_ratio 0"


def hold_out(
    group: Integers,
    source: NDArray[np.integer],
    digest: NDArray[np.uint64],
    ratio: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Which rows are held out: whole groups, about `ratio` of the rows of each source.

    `group` numbers the rows that must stay on one side; `digest` tells contents apart. At least
    one row is held out and never all; ratio 0 holds out none. In each source the groups with the
    smallest hash of seed and content are held out, as many as fit into its share; where no group
    fits into any, the smallest of all is held out. So a row keeps its side when others come or go,
    but for those at the border. GateError: all rows are one group.
    """
    import numpy as np

    held = np.zeros(len(group), bool)
    if ratio == 0:
        return held
    if len(group) < 2:
        plural = "" if len(group) == 1 else "s"
        raise GateError(
            f"{len(group)} row{plural} is too few to hold any out for validation", remedy=_REMEDY
        )
    rank = _rank(digest, seed)
    order = np.lexsort((rank, group))
    begins = np.flatnonzero(np.append(True, np.diff(group[order]) != 0))
    if len(begins) == 1:
        raise GateError(
            f"all {len(group)} rows ask the same or are nearly the same: none can be held out for "
            "validation without also standing in training",
            remedy=_REMEDY,
        )
    leaders = order[begins]  # the row with the smallest rank in each group
    sizes = np.diff(np.append(begins, len(group)))
    chosen = _chosen(rank[leaders], sizes, source[leaders], ratio)
    held[order] = np.repeat(chosen, sizes)
    return held


def _chosen(
    rank: NDArray[np.uint64], size: Integers, source: NDArray[np.integer], ratio: float
) -> NDArray[np.bool_]:
    """Which groups are held out, by the rank, the number of rows and the source of each."""
    import numpy as np

    chosen = np.zeros(len(rank), bool)
    for stratum, share in _shares(rank, size, source, ratio).items():
        groups = np.flatnonzero(source == stratum)
        groups = groups[np.argsort(rank[groups])]
        free = share
        for group, rows in zip(groups.tolist(), size[groups].tolist(), strict=True):
            if free == 0:
                break
            if rows <= free:
                chosen[group] = True
                free -= rows
    if not chosen.any():
        chosen[np.lexsort((rank, size))[0]] = True
    return chosen


def _shares(
    rank: NDArray[np.uint64], size: Integers, source: NDArray[np.integer], ratio: float
) -> dict[int, int]:
    """Rows to hold out of each source; together `ratio` of all, at least one, never all.

    What rounding leaves over goes to the sources with the largest remainders.
    """
    import numpy as np

    strata = np.unique(source)
    rows = np.array([size[source == stratum].sum() for stratum in strata])
    first = np.array([rank[source == stratum].min() for stratum in strata])
    total = int(rows.sum())
    wanted = min(max(1, round(total * ratio)), total - 1)
    exact = rows * (wanted / total)
    share = np.floor(exact).astype(np.int64)
    largest = np.lexsort((first, share - exact))
    share[largest[: wanted - int(share.sum())]] += 1
    return dict(zip(strata.tolist(), share.tolist(), strict=True))


def _rank(digest: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A hash of each row's content and the seed (the finaliser of SplitMix64)."""
    import numpy as np

    salt = hashlib.blake2b(str(seed).encode("ascii"), digest_size=8).digest()
    value: NDArray[np.uint64] = digest ^ np.uint64(int.from_bytes(salt, "little"))
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value
