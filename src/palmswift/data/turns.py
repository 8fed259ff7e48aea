"""Makes a dialogue that is too long fit: by its newest turns, or by dividing it between turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from palmswift.data.verdict import Measured

Row = dict[str, Any]
Measure = Callable[[Row], Measured]


class Fitted(NamedTuple):
    """A range of messages that fits, and what was measured of it."""

    start: int
    stop: int
    measured: Measured


class TooLong(NamedTuple):
    """One question with its answer that does not fit even alone."""

    start: int
    stop: int
    n_tokens: int


def fit(
    row: Row, measure: Measure, limit: int, policy: Literal["truncate", "split"]
) -> list[Fitted] | TooLong:
    """Ranges of the row's messages that each fit into `limit` tokens with the system message.

    `truncate`: one range, as many of the newest turns as fit. `split`: ranges that follow each
    other without a gap and hold every turn, each as long as fits. A range begins with a question.
    """
    edges = [*exchanges(row["messages"]), len(row["messages"])]
    last = len(edges) - 1

    def measured(first: int, stop: int) -> Fitted:
        start, end = edges[first], edges[stop]
        return Fitted(start, end, measure(part_of(row, start, end)))

    if policy == "truncate":
        newest = _largest(lambda size: measured(last - size, last), limit, last)
        return [newest] if isinstance(newest, Fitted) else newest
    parts: list[Fitted] = []
    while (first := edges.index(parts[-1].stop) if parts else 0) < last:
        part = _largest(partial(_from, measured, first), limit, last - first)
        if isinstance(part, TooLong):
            return part
        parts.append(part)
    return parts


def _from(measured: Callable[[int, int], Fitted], first: int, size: int) -> Fitted:
    return measured(first, first + size)


def exchanges(messages: Sequence[dict[str, Any]]) -> list[int]:
    """Where each question that follows an answer begins, and first where the dialogue begins."""
    begin = 1 if messages[0]["role"] == "system" else 0
    roles = [message["role"] for message in messages]
    later = range(begin + 1, len(messages))
    return [begin, *(i for i in later if (roles[i - 1], roles[i]) == ("assistant", "user"))]


def part_of(row: Row, start: int, stop: int) -> Row:
    """The row with its system message and the messages from `start` to `stop - 1` alone."""
    messages = row["messages"]
    system = messages[:1] if messages[0]["role"] == "system" and start > 0 else []
    return {**row, "messages": [*system, *messages[start:stop]]}


def _largest(measured: Callable[[int], Fitted], limit: int, most: int) -> Fitted | TooLong:
    """The largest of the sizes 1 to `most` that fits, found by halving; what is returned fits."""
    best = measured(1)
    if best.measured.longest > limit:
        return TooLong(best.start, best.stop, best.measured.longest)
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        tried = measured(middle)
        if tried.measured.longest <= limit:
            low, best = middle, tried
        else:
            high = middle - 1
    return best
