"""What is said of each row after its tokens were counted: its counts, or why it does not train."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from palmswift.data.row import Kind


class Counts(NamedTuple):
    """The tokens of one sequence as `Template.encode` makes it."""

    n_tokens: int
    n_supervised: int
    """Tokens that are trained on: labels that are not -100."""
    has_text: bool
    """Whether the supervised tokens hold more than control tokens and blank space."""
    ends_with_eos: bool


class Measured(NamedTuple):
    """One row under the template: its sequences, or the error that makes ms-swift drop it."""

    sequences: tuple[Counts, ...] = ()
    """One; a dpo row has two, the chosen answer's first."""
    control_token: str | None = None
    """A control token of this very tokenizer that stands in the row's text."""
    error: str = ""
    """The exception's name."""
    detail: str = ""
    n_tokens: int = 0
    """Tokens of a row that is too long, where ms-swift tells them."""

    @property
    def longest(self) -> int:
        """Tokens of the row's longest sequence, of one that is too long as well."""
        return max((counts.n_tokens for counts in self.sequences), default=self.n_tokens)


class Part(NamedTuple):
    """Messages `start` to `stop - 1` of a row, which fit together with its system message."""

    start: int
    """Index in the row's `messages`, which may begin with the system message; never 0 then."""
    stop: int
    n_tokens: int
    n_supervised: int


class Verdict(NamedTuple):
    """What is said of one row."""

    n_tokens: int
    """Of a dpo row those of the longer answer, of a row in parts the sum."""
    n_supervised: int
    """Of a dpo row those of the answer with fewer, of a row in parts the sum."""
    code: str = ""
    """A key of `palmswift.data.policy.CHECKS`; empty for a row that trains."""
    detail: str = ""
    parts: tuple[Part, ...] = ()


def verdict_on(measured: Measured, kind: Kind, max_length: int | None) -> Verdict:
    """The verdict on a row that is not divided."""
    n_tokens = measured.longest
    n_supervised = min((counts.n_supervised for counts in measured.sequences), default=0)
    code, detail = _reason(measured, kind, max_length) or ("", "")
    return Verdict(n_tokens, n_supervised, code, detail)


def too_long(n_tokens: int, max_length: int | None) -> str:
    """The detail of `over_length`."""
    return f"{n_tokens} tokens > max_length {max_length}"


def _reason(measured: Measured, kind: Kind, max_length: int | None) -> tuple[str, str] | None:
    if measured.error == "MaxLengthError":
        return "over_length", too_long(measured.n_tokens, max_length)
    if measured.error:
        return "template_error", f"{measured.error}: {measured.detail}"
    if measured.control_token:
        return "control_tokens", f"the text has {measured.control_token}"
    if kind == "grpo":  # the prompt alone: what is trained on is generated later
        return None
    for number, counts in enumerate(measured.sequences):
        side = f"{('preferred', 'rejected')[number]} answer: " if kind == "dpo" else ""
        if not counts.n_supervised:
            return "zero_supervised_tokens", f"{side}0 of {counts.n_tokens} tokens"
        if not counts.has_text:
            return "no_supervised_text", f"{side}{counts.n_supervised} supervised tokens, no text"
        if not counts.ends_with_eos:
            return "no_eos", f"{side}cut to {counts.n_tokens} tokens"
    return None


class Verdicts:
    """The verdicts on all rows, in their order: a few bytes for a row that trains."""

    def __init__(self, verdicts: Iterable[Verdict] = ()) -> None:
        self._tokens = array("I")
        self._supervised = array("I")
        # Of the few rows with more to say: their numbers in rising order, and what it is.
        self._rejected = array("I")
        self._reasons: list[tuple[str, str]] = []
        self._shared: dict[tuple[str, str], tuple[str, str]] = {}
        self._divided = array("I")
        self._ends = array("I", [0])
        self._parts = array("I")
        self.extend(verdicts)

    def extend(self, verdicts: Iterable[Verdict]) -> None:
        """Add the verdicts on the rows that follow."""
        for verdict in verdicts:
            if verdict.code:
                reason = (verdict.code, verdict.detail)
                self._rejected.append(len(self._tokens))
                self._reasons.append(self._shared.setdefault(reason, reason))
            if verdict.parts:
                self._divided.append(len(self._tokens))
                self._parts.extend(number for part in verdict.parts for number in part)
                self._ends.append(len(self._parts))
            self._tokens.append(verdict.n_tokens)
            self._supervised.append(verdict.n_supervised)

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[Verdict]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Verdict:
        if not 0 <= index < len(self):
            raise IndexError(index)
        code, detail = self.reason(index) or ("", "")
        parts = tuple(self._parts_of(index))
        return Verdict(self.n_tokens(index), self.n_supervised(index), code, detail, parts)

    def n_tokens(self, index: int) -> int:
        """Tokens of the row, of an over-long one too."""
        return self._tokens[index]

    def n_supervised(self, index: int) -> int:
        """Tokens of the row that are trained on."""
        return self._supervised[index]

    def reason(self, index: int) -> tuple[str, str] | None:
        """Code and detail of the rejection; None for a row that trains."""
        at = _find(self._rejected, index)
        return None if at is None else self._reasons[at]

    def parts(self, index: int) -> list[tuple[int, int]] | None:
        """The ranges of messages that are to become rows; None for a row that stays as it is.

        Indices count in the row's `messages`. A system message is in no range: it belongs to each.
        """
        return [(part.start, part.stop) for part in self._parts_of(index)] or None

    def part_counts(self, index: int) -> list[tuple[int, int]] | None:
        """Tokens and supervised tokens of each of `parts`, in the same order."""
        return [(part.n_tokens, part.n_supervised) for part in self._parts_of(index)] or None

    def _parts_of(self, index: int) -> Iterator[Part]:
        at = _find(self._divided, index)
        if at is not None:
            for start in range(self._ends[at], self._ends[at + 1], len(Part._fields)):
                yield Part(*self._parts[start : start + len(Part._fields)])


def _find(rising: array[int], number: int) -> int | None:
    at = bisect_left(rising, number)
    return at if at < len(rising) and rising[at] == number else None
