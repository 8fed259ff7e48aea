"""Which cases of a suite stand in the training data: streamed, in bounded memory.

A case whose question was trained on shows what was learned by heart. Exact copies are found at any
length, passages by shared runs of 13 words or, where Chinese is written, 20 characters (the lengths
of lm-evaluation-harness's decontamination and of its Chinese kin).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from palmswift.data.read import read_rows
from palmswift.data.row import SourceRow
from palmswift.eval.asking.conversation import Case

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WORDS, CHARACTERS = 13, 20
Leak = Literal["question", "passage", "answer"]
"""`question`: the whole question was trained on; `passage`: a run of its words; `answer`: the
reference or a run of it, perhaps as the answer to another question."""

_END = "\x00"
_NOISE = re.compile(r"[^\w\x00]|_")
_TOKENS = re.compile(r"\x00|[^\W_]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_BATCH = 1 << 20
"""Characters that are searched at a time."""
_TABLE_BITS = 22
_FACTOR = 0x9E3779B97F4A7C15
_SHARED = 2
"""A run of words that stands in more cases than these is a form of the suite, not a leak."""
_RANK: dict[Leak, int] = {"question": 0, "passage": 1, "answer": 2}


class Contamination(NamedTuple):
    """What was found."""

    leaks: dict[str, Leak]
    """By case id, the strongest kind; cases that were not found are not in it."""
    rows: int
    """How many training rows were read."""
    files: list[str]

    @property
    def known_questions(self) -> frozenset[str]:
        """The cases that are no test of anything but memory."""
        return frozenset(case for case, leak in self.leaks.items() if leak != "answer")


def find_leaks(cases: Sequence[Case], files: Sequence[Path]) -> Contamination:
    """Look for each case's last question and reference in all texts of the training files.

    InputError: a file cannot be read. Rows that are broken are searched as the text they are.
    """
    index = _Index(cases)
    rows = 0
    parts: list[str] = []
    size = 0
    for path in files:
        for row in read_rows(path):
            rows += 1
            for text in _texts(row.value if isinstance(row, SourceRow) else row.row):
                parts.append(text.replace(_END, " "))
                size += len(text) + 1
            if size >= _BATCH:
                index.search(parts)
                parts, size = [], 0
    index.search(parts)
    return Contamination(index.leaks, rows, [path.name for path in files])


def _texts(value: Any) -> Iterator[str]:
    """Every text in a row, however it is nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


class _Index:
    """The suite's texts and runs, and what of them has been found."""

    def __init__(self, cases: Sequence[Case]) -> None:
        import numpy as np

        self.leaks: dict[str, Leak] = {}
        self._exact: dict[str, list[tuple[str, Leak]]] = {}
        self._vocabulary: dict[str, int] = {}
        characters: dict[str, dict[str, Leak]] = {}
        words: dict[tuple[int, ...], dict[str, Leak]] = {}
        for case in cases:
            texts: tuple[tuple[str | None, Leak, Leak], ...] = (
                (case.reference, "answer", "answer"),
                (case.turns[-1].content, "question", "passage"),
            )
            for text, whole, part in texts:
                folded = _folded((text or "").replace(_END, " "))
                bare = _NOISE.sub("", folded)
                # A short answer such as "yes" is the same everywhere and shows nothing.
                if whole == "question" or len(bare) >= CHARACTERS:
                    self._exact.setdefault(bare, []).append((case.id, whole))
                if _CJK.search(folded):
                    for gram in _runs(bare, CHARACTERS):
                        characters.setdefault(gram, {})[case.id] = part
                else:
                    for run in _runs(self._numbered(folded), WORDS):
                        words.setdefault(run, {})[case.id] = part
        self._exact.pop("", None)
        self._characters = _distinct(characters)
        self._words = _distinct(words)
        self._character_table = _table(
            np.array([[ord(c) for c in gram] for gram in self._characters], dtype=np.uint64),
            CHARACTERS,
        )
        self._word_table = _table(np.array(list(self._words), dtype=np.uint64), WORDS)

    def search(self, texts: Sequence[str]) -> None:
        """Note which cases stand in these texts."""
        import numpy as np

        folded = _folded(_END.join(texts))
        bare = _NOISE.sub("", folded)
        for text in self._exact.keys() & set(bare.split(_END)):
            for case, leak in self._exact[text]:
                self._found(case, leak)
        if self._characters:
            # A lone surrogate cannot be in a suite; it must not stop the search.
            codes = np.frombuffer(bare.encode("utf-32-le", "surrogatepass"), dtype="<u4")
            for place in _candidates(codes.astype(np.uint64), CHARACTERS, self._character_table):
                self._all(self._characters.get(bare[place : place + CHARACTERS], {}))
        if self._words:
            known = self._vocabulary
            tokens = [known.get(token, 0) for token in _TOKENS.findall(folded)]
            numbers = np.array(tokens, dtype=np.uint64)
            for place in _candidates(numbers, WORDS, self._word_table):
                self._all(self._words.get(tuple(tokens[place : place + WORDS]), {}))

    def _numbered(self, folded: str) -> tuple[int, ...]:
        known = self._vocabulary
        return tuple(known.setdefault(token, len(known) + 1) for token in _TOKENS.findall(folded))

    def _all(self, found: dict[str, Leak]) -> None:
        for case, leak in found.items():
            self._found(case, leak)

    def _found(self, case: str, leak: Leak) -> None:
        before = self.leaks.get(case)
        if before is None or _RANK[leak] < _RANK[before]:
            self.leaks[case] = leak


def _runs(sequence: Any, length: int) -> Iterable[Any]:
    return (sequence[i : i + length] for i in range(len(sequence) - length + 1))


def _distinct(grams: dict[Any, dict[str, Leak]]) -> dict[Any, dict[str, Leak]]:
    return {gram: cases for gram, cases in grams.items() if len(cases) <= _SHARED}


def _hashes(values: npt.NDArray[np.uint64], length: int) -> npt.NDArray[np.uint64]:
    """A hash of each run of `length` along the last axis."""
    import numpy as np

    count = values.shape[-1] - length + 1
    factor = np.uint64(_FACTOR)
    total = np.zeros((*values.shape[:-1], count), dtype=np.uint64)
    for offset in range(length):
        total *= factor
        total += values[..., offset : offset + count]
    total ^= total >> np.uint64(32)
    total *= factor
    total >>= np.uint64(64 - _TABLE_BITS)
    return total


def _table(grams: npt.NDArray[np.uint64], length: int) -> npt.NDArray[np.bool_]:
    """Which hashes occur."""
    import numpy as np

    table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
    if len(grams):
        table[_hashes(grams, length)[:, 0]] = True
    return table


def _candidates(
    values: npt.NDArray[np.uint64], length: int, table: npt.NDArray[np.bool_]
) -> list[int]:
    """Where a run begins whose hash occurs."""
    import numpy as np

    if len(values) < length:
        return []
    return [int(place) for place in np.flatnonzero(table[_hashes(values, length)])]
