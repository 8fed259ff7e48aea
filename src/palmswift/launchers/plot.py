"""A curve in a few lines of text, four dots high and two wide in each character (braille)."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character, by row from the top and by column."""


def braille(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """Points (x from 0 to 1, ascending; y) joined in `height` lines of `width` characters.

    The highest y is at the top. Points that are not finite leave a gap; those that fall into one
    column show their mean.
    """
    # Between -1 and 1, where no sum or difference overflows.
    scale = max((abs(y) for _, y in points if math.isfinite(y)), default=0.0) or 1.0
    rows = _rows(_columns([(x, y / scale) for x, y in points], 2 * width), 4 * height)
    cells = [[_BLANK] * width for _ in range(height)]
    before: int | None = None
    for x, row in enumerate(rows):
        if row is not None:
            # A line without gaps: from where the column before ended.
            for dot in _between(before, row):
                cells[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
        before = row
    return ["".join(map(chr, line)) for line in cells]


def _between(before: int | None, row: int) -> range:
    if before is None or before == row:
        return range(row, row + 1)
    return range(before + 1, row + 1) if before < row else range(row, before)


def _rows(columns: Sequence[float | None], count: int) -> list[int | None]:
    """The values as rows from the top."""
    finite = [value for value in columns if value is not None]
    if not finite:
        return [None] * len(columns)
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    return [
        None if value is None else round((high - value) / span * (count - 1)) for value in columns
    ]


def _columns(points: Sequence[tuple[float, float]], count: int) -> list[float | None]:
    """A value for each column from the first point to the last, straight lines between them."""
    columns: list[float | None] = [None] * count
    gathered: dict[int, list[float]] = {}
    for x, y in points:
        gathered.setdefault(min(count - 1, max(0, round(x * (count - 1)))), []).append(y)
    before: tuple[int, float] | None = None
    for x, values in sorted(gathered.items()):
        if not all(map(math.isfinite, values)):
            before = None
            continue
        mean = sum(values) / len(values)
        columns[x] = mean
        if before is not None:
            start, first = before
            for between in range(start + 1, x):
                columns[between] = first + (mean - first) * (between - start) / (x - start)
        before = x, mean
    return columns
