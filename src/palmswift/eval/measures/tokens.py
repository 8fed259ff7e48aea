"""Texts cut into what the metrics count: characters, words, and Chinese words."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from functools import lru_cache

_HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u3096\u30a1-\u30fa"
_HAN_OR_KANA = re.compile(f"[{_HAN}{_KANA}]")
_CHARACTERS = re.compile(rf"[{_HAN}{_KANA}]|[^\W_{_HAN}{_KANA}]+")
_RUNS = re.compile(rf"[{_HAN}{_KANA}]+|[^\W_{_HAN}{_KANA}]+")
_HAS_HAN = re.compile(f"[{_HAN}]")


def has_chinese(text: str) -> bool:
    """Whether there is a Han character in it."""
    return _HAS_HAN.search(text) is not None


def characters(text: str) -> list[str]:
    """Each Han and kana character by itself, and each run of other letters and digits as a word,
    in lower case; punctuation and symbols are left out. Of English text these are the tokens that
    rouge-score counts (without a stemmer)."""
    return _CHARACTERS.findall(text.lower())


def words(text: str) -> list[str]:
    """As `characters`, but with the Chinese runs cut into words (jieba's dictionary and model)."""
    return list(_words(text))


@lru_cache(maxsize=1 << 15)  # several metrics count the words of the same answers
def _words(text: str) -> tuple[str, ...]:
    found: list[str] = []
    for run in _RUNS.findall(text.lower()):
        if _HAN_OR_KANA.match(run):
            import rjieba

            found += rjieba.cut(run)
        else:
            found.append(run)
    return tuple(found)


def lcs_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence.

    Bit-parallel, all rows of the table's column at once in one integer (Hyyrö 2004, "Bit-parallel
    LCS-length computation revisited"): a bit that is 0 is a step of the subsequence.
    """
    if len(first) > len(second):  # the longer in the integer: fewer steps
        first, second = second, first
    places: dict[Hashable, int] = {}
    for position, item in enumerate(second):
        places[item] = places.get(item, 0) | (1 << position)
    everything = (1 << len(second)) - 1
    row = everything
    for item in first:
        matches = row & places.get(item, 0)
        if matches:
            row = ((row + matches) | (row - matches)) & everything
    return len(second) - row.bit_count()


def similarity(first: str, second: str) -> float:
    """2 x LCS / both lengths, by characters: 1 for equal texts (two empty ones too), else down to
    0; 1 less the normalised edit distance without replacements."""
    length = len(first) + len(second)
    return 1.0 if first == second else 2 * lcs_length(first, second) / length
