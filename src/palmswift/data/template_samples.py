"""Rows to look at: chosen evenly from all that train, their tokens turned back into text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from palmswift.data.sample import Span

_BROKEN = "�"
"""What the bytes of a character that is not whole are decoded to."""

_LONGEST_CHARACTER = 4
"""Bytes, and so tokens, of a character at the most."""


class Reservoir:
    """`size` rows of all that were offered, each with the same chance; the same ones each time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._random = random.Random(0)
        self._offered = 0
        self._kept: list[tuple[int, dict[str, Any]]] = []

    def offer(self, index: int, row: dict[str, Any]) -> None:
        """Take the row up, or not."""
        self._offered += 1
        if len(self._kept) < self._size:
            self._kept.append((index, row))
        elif (place := self._random.randrange(self._offered)) < self._size:
            self._kept[place] = (index, row)

    @property
    def rows(self) -> list[tuple[int, dict[str, Any]]]:
        """The rows with their numbers, in rising order."""
        return sorted(self._kept, key=lambda kept: kept[0])


def spans(
    ids: Sequence[int], labels: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> list[Span]:
    """The tokens as text, divided where training on them begins or ends.

    The text of a character whose tokens are divided stands in the span of its last token.
    """
    runs = [
        (trained, [ids[i] for i in numbers])
        for trained, numbers in groupby(range(len(ids)), key=lambda i: labels[i] != -100)
    ]
    return list(_decoded(runs, decode))


def _decoded(
    runs: Sequence[tuple[bool, list[int]]], decode: Callable[[Sequence[int]], str]
) -> Iterator[Span]:
    begun: list[int] = []
    for number, (trained, ids) in enumerate(runs):
        tokens = [*begun, *ids]
        text = decode(tokens)
        begun = []
        if text.endswith(_BROKEN) and number < len(runs) - 1:
            for size in range(1, min(_LONGEST_CHARACTER, len(tokens) + 1)):
                whole = decode(tokens[:-size])
                if not whole.endswith(_BROKEN):
                    text, begun = whole, tokens[-size:]
                    break
        yield Span(text=text, n_tokens=len(ids), trained=trained)
