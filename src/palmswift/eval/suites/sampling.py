"""A smaller selection of cases for a quick look: every tag in it, and the same one each time."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from palmswift.eval.asking.conversation import Case


def select(cases: Sequence[Case], size: int | None, seed: int = 0) -> list[Case]:
    """At most `size` cases in their own order, stratified by tags; None: all.

    The first case of each stratum comes first, then the strata in proportion to their sizes.
    Selections are nested: that of 20 is part of that of 100 under the same seed.
    """
    if size is None or size >= len(cases):
        return list(cases)
    strata: dict[tuple[str, ...], list[Case]] = defaultdict(list)
    for case in cases:
        strata[tuple(case.tags)].append(case)
    ranked: list[tuple[float, str, str]] = []
    for stratum in strata.values():
        drawn = sorted((_draw(case.id, seed), case.id) for case in stratum)
        for rank, (draw, name) in enumerate(drawn):
            position = (rank + 0.5) / len(drawn) if rank else 0.0
            ranked.append((position, draw, name))
    chosen = {name for _, _, name in sorted(ranked)[:size]}
    return [case for case in cases if case.id in chosen]


def _draw(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
