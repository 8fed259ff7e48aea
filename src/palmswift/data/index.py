"""What is kept in memory of each row between the two passes: numbers only, some 200 bytes a row."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from palmswift.data.checks import date_columns
from palmswift.data.near import LONGEST, VALUES, sketches
from palmswift.data.report import Use
from palmswift.data.row import Kind, Place, TrainingRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from palmswift.data.near import Sketches

_ROWS_AT_ONCE, _CHARACTERS_AT_ONCE = 128, 1 << 18
"""Rows that are sketched together, which takes some 60 bytes a character meanwhile."""

_MOST_COLUMNS = 32


class RowIndex:
    """Of every row that passed the checks of its own, by its number in reading order."""

    def __init__(self, files: Sequence[tuple[str, Use]], kind: Kind) -> None:
        """`files` are the names of the files as they are given, and what for."""
        self._files = files
        self._kind = kind
        self._file, self._line, self._number = array("I"), array("Q"), array("I")
        self._digest, self._question, self._claim = array("Q"), array("Q"), array("Q")
        self._length = array("I")
        self._dated, self._undated, self._types = array("I"), array("I"), array("I")
        self._sketches = array("H")
        self._texts: list[str] = []
        self._waiting = 0
        self._columns: dict[str, int] = {}
        self.type_sets: dict[frozenset[tuple[str, str]], int] = {}
        """Each set of (path, type) that the extra columns of a row make up, to its number."""

    def __len__(self) -> int:
        return len(self._line)

    def add(self, file: int, row: TrainingRow, digest: bytes) -> None:
        """Note the next row; `digest` is `row.digest`."""
        self._file.append(file)
        self._line.append(row.place.line)
        self._number.append(row.place.number)
        self._digest.append(int.from_bytes(digest[:8], "little"))
        question, claim = _question_and_claim(row, self._kind)
        self._question.append(question)
        self._claim.append(claim)
        self._length.append(len(row.messages[-1].content.rpartition("</think>")[2].strip()))
        self._note_columns(row)
        texts = [message.content for message in row.messages if message.role != "system"]
        if row.rejected_response is not None:
            texts.append(row.rejected_response)
        self._texts.append("\n".join(texts))
        self._waiting += min(len(self._texts[-1]), LONGEST)
        if len(self._texts) == _ROWS_AT_ONCE or self._waiting >= _CHARACTERS_AT_ONCE:
            self._sketch()

    def close(self) -> None:
        """No more rows will come; from now on the columns can be read."""
        self._sketch()

    def _sketch(self) -> None:
        if self._texts:
            self._sketches.frombytes(sketches(self._texts).tobytes())
            self._texts.clear()
            self._waiting = 0

    def _note_columns(self, row: TrainingRow) -> None:
        """Which columns hold only dates in the row, and what the extra ones hold."""
        names = ["messages"]
        if row.rejected_response is not None:
            names.append("rejected_response")
        names += (name for name, value in row.extra.items() if value is not None)
        dates = date_columns(row)
        dated = undated = 0
        for name in names:
            bit = self._columns.setdefault(name, len(self._columns))
            if bit < _MOST_COLUMNS:
                dated |= (name in dates) << bit
                undated |= (name not in dates) << bit
        self._dated.append(dated)
        self._undated.append(undated)
        types = frozenset(_types(row.extra)) if row.extra else frozenset()
        self._types.append(self.type_sets.setdefault(types, len(self.type_sets)))

    def place(self, row: int) -> Place:
        """Where the row was read."""
        return Place(self._files[self._file[row]][0], self._line[row], self._number[row])

    def use(self, row: int) -> Use:
        """What the file of the row was given for."""
        return self._files[self._file[row]][1]

    @property
    def file(self) -> NDArray[np.uint32]:
        """The number of each row's file."""
        return _view(self._file)

    @property
    def in_val(self) -> NDArray[np.bool_]:
        """Whether each row comes from a validation file."""
        import numpy as np

        return np.array([use == "val" for _, use in self._files])[self.file]

    @property
    def digest(self) -> NDArray[np.uint64]:
        """Half of each row's digest."""
        return _view(self._digest)

    @property
    def question(self) -> NDArray[np.uint64]:
        """A digest of what each row asks; 0 where it asks nothing."""
        return _view(self._question)

    @property
    def claim(self) -> NDArray[np.uint64]:
        """A digest of what each row makes a statement about; 0 where it makes none.

        Two rows of one claim that differ contradict each other: another answer to the question;
        the other label for the answer (kto); the same two answers the other way round (dpo).
        """
        return _view(self._claim)

    @property
    def length(self) -> NDArray[np.uint32]:
        """Characters of each row's last answer, after its think block."""
        return _view(self._length)

    @property
    def dated(self) -> NDArray[np.uint32]:
        """A bit for each column that holds nothing but timestamps in the row."""
        return _view(self._dated)

    @property
    def undated(self) -> NDArray[np.uint32]:
        """A bit for each column that holds something else in the row."""
        return _view(self._undated)

    @property
    def types(self) -> NDArray[np.uint32]:
        """The number of each row's set of types in `type_sets`."""
        return _view(self._types)

    @property
    def sketches(self) -> Sketches:
        """The sketch of each row (palmswift.data.near)."""
        return _view(self._sketches).reshape(-1, VALUES)


def _view(numbers: array[int]) -> NDArray[Any]:
    import numpy as np

    if not numbers:  # an empty buffer is refused
        return np.zeros(0, numbers.typecode)
    return np.frombuffer(numbers, dtype=numbers.typecode)


def _types(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Where in a value stands what type, as Arrow tells types apart; null goes with all."""
    if isinstance(value, Mapping):
        if path:
            yield path, "object"
        for key, inner in value.items():
            yield from _types(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        yield path, "list"
        for inner in value:
            yield from _types(inner, f"{path}[]")
    elif value is not None:
        names: dict[type, str] = {bool: "true or false", int: "number", float: "number"}
        yield path, names.get(type(value), "text")


def _question_and_claim(row: TrainingRow, kind: Kind) -> tuple[int, int]:
    if kind == "pt":
        return 0, 0
    if kind == "grpo":
        question = _short_digest((row.messages, row.tools))
        return question, question
    before, answer = row.messages[:-1], row.messages[-1].content
    question = _short_digest((before, row.tools))
    if kind == "kto":
        return question, _short_digest((question, answer))
    if kind == "dpo":
        return question, _short_digest((question, sorted((answer, row.rejected_response or ""))))
    return question, question


def _short_digest(document: object) -> int:
    """8 bytes that are equal exactly when two documents are; never 0."""
    encoded = msgspec.json.encode(document)
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little") or 1
