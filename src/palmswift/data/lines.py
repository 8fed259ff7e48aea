"""Lines of a file with their numbers, one at a time; a line of any length costs bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from palmswift.data.row import Place, Rejection

LONGEST_ROW = 16 << 20
"""Characters; what is longer is no training row."""

_KEPT_OF_A_LONG_ROW = 1000


class Line(NamedTuple):
    """One line without its LF; of one that is too long, the beginning."""

    number: int
    text: str
    whole: bool = True


class Lines:
    """The lines of a text; some that were taken can be given back."""

    def __init__(self, blocks: Iterable[str]) -> None:
        self._lines = _split(blocks)
        self._given_back: deque[Line] = deque()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        if self._given_back:
            return self._given_back.popleft()
        return next(self._lines)

    def give_back(self, lines: Sequence[Line]) -> None:
        """The next lines are these, in this order."""
        self._given_back.extendleft(reversed(lines))


def _split(blocks: Iterable[str]) -> Iterator[Line]:
    number = 1
    begun: list[str] = []
    size = 0
    for block in blocks:
        first, *others = block.split("\n")
        if size <= LONGEST_ROW:
            begun.append(first)
        size += len(first)
        if not others:
            continue
        yield _line(number, begun, size)
        rest = others.pop()
        for text in others:
            number += 1
            yield Line(number, text)
        number += 1
        begun, size = [rest], len(rest)
    if size:
        yield _line(number, begun, size)


def _line(number: int, pieces: list[str], size: int) -> Line:
    if size > LONGEST_ROW:
        return Line(number, pieces[0][:_KEPT_OF_A_LONG_ROW], whole=False)
    return Line(number, "".join(pieces))


def too_large(place: Place, text: str) -> Rejection:
    """The rejection of a row of which `text` is the beginning, or more."""
    detail = f"it has more than {LONGEST_ROW:,} characters; the first {_KEPT_OF_A_LONG_ROW:,}"
    detail += " are kept here"
    return Rejection(place, "row_too_large", detail, text[:_KEPT_OF_A_LONG_ROW])
