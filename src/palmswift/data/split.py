"""Which rows are held out: decided by their content, so that neither order nor file matters."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from palmswift.data.row import Conversation
from palmswift.errors import GateError


class Split(NamedTuple):
    """Rows to train on and rows held out, each in the order in which they were read."""

    train: list[Conversation]
    val: list[Conversation]


def hold_out(rows: Sequence[Conversation], ratio: float, seed: int) -> Split:
    """Hold out `ratio` of the rows, at least one and never all; ratio 0 holds out none.

    The rows with the smallest hash of seed and content are held out. GateError: fewer than two
    rows, so that nothing would be left on one side.
    """
    if ratio == 0:
        return Split(list(rows), [])
    if len(rows) < 2:
        raise GateError(
            f"{len(rows)} row is too few to hold any out for validation",
            remedy="give at least two good rows, a validation file, or data.val_ratio 0",
        )
    count = min(max(1, round(len(rows) * ratio)), len(rows) - 1)
    ranked = sorted(range(len(rows)), key=lambda index: _rank(rows[index], seed))
    held = set(ranked[:count])
    return Split(
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )


def _rank(row: Conversation, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{row.digest}".encode("ascii")).hexdigest()
