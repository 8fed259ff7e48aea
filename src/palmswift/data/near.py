"""Rows that are nearly the same: sketches of their texts, and clusters of sketches that agree.

A text is a set of shingles: runs of 5 characters where a script without spaces prevails (Chinese,
Japanese, Thai), runs of 3 words otherwise. Case, width and spacing do not count; punctuation does.
Two texts are near when the Jaccard similarity of their sets is 0.8 or more, which is estimated
from 64 values a row (Dahlgaard, Knudsen, Thorup: Fast Similarity Sketching, FOCS 2017) that agree
as often as the sets do.

At 64 values an estimate is off by 0.05 (one standard deviation) at 0.8. Pairs are called near with
a chance of 0.05 % at a similarity of 0.6, 3 % at 0.7, 45 % at 0.8, 99 % at 0.9 and always at 1.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Words = NDArray[np.uint32]
    Sketches = NDArray[np.uint16]

VALUES = 64
"""Values in a sketch; each tells a shingle of the text by 16 bits of its hash."""

AGREEING = 52
"""Values that have to agree: 0.8 of them, rounded up."""

LONGEST = 20_000
"""Characters of a text that are looked at; what comes after them is taken to be alike."""

_CHARACTERS, _WORDS = 5, 3
"""Length of a shingle, in characters or in words."""

_BAND = 4
"""Values that have to agree exactly for two rows to be compared at all: 8 bytes of the sketch.

At a similarity of 0.8 one of the 16 bands agrees with a chance of 0.9998.
"""

_WINDOW = 4
"""Neighbours that a row is compared with, either way, in a bucket of rows that share a band."""

_SPACE, _WORD, _UNSPACED, _OTHER = 0, 1, 2, 3
_UNSPACED_SCRIPTS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai, Lao, Myanmar, Khmer
    *((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),  # kana, Han
)
_EMPTY = 0xFFFF_FFFF


class _Alphabet(NamedTuple):
    """Of each character below U+10000: what it counts as, and what sort it is."""

    folded: Words
    sort: NDArray[np.uint8]


@cache
def _alphabet() -> _Alphabet:
    import numpy as np

    folded = np.arange(0x10000, dtype=np.uint32)
    sort = np.full(0x10000, _OTHER, np.uint8)
    for code in range(0x10000):
        character = chr(code)
        alike = unicodedata.normalize("NFKC", character).lower()
        if len(alike) == 1:
            folded[code] = ord(alike)
        if character.isspace():
            sort[code] = _SPACE
        elif character.isalnum():
            sort[code] = _WORD
    for first, last in _UNSPACED_SCRIPTS:
        run = sort[first : last + 1]
        run[run == _WORD] = _UNSPACED
    return _Alphabet(folded, sort)


def sketches(texts: Sequence[str]) -> Sketches:
    """A sketch a text, as the rows of an array of 16-bit values.

    Texts without any visible character have equal sketches.
    """
    import numpy as np

    cut = [text[:LONGEST] for text in texts]
    joined = "\n".join(cut) + "\n"
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    row = np.repeat(np.arange(len(cut)), [len(text) + 1 for text in cut])
    alphabet = _alphabet()
    low = np.minimum(codes, 0xFFFF)
    sort = alphabet.sort[low]
    sort[(codes >= 0x20000) & (codes < 0x32000)] = _UNSPACED
    codes = np.where(codes < 0x10000, alphabet.folded[low], codes)
    unspaced = np.bincount(row[sort == _UNSPACED], minlength=len(cut))
    visible = np.bincount(row[sort != _SPACE], minlength=len(cut))
    by_character = (unspaced * 4 >= visible)[row] & (unspaced > 0)[row]
    hashes, rows = [], []
    for chosen, length in ((by_character, _CHARACTERS), (~by_character, _WORDS)):
        parts = sort[chosen]
        if length == _CHARACTERS:
            parts[parts != _SPACE] = _OTHER
        token, token_row = _tokens(codes[chosen], parts, row[chosen])
        shingle, shingle_row = _shingles(token, token_row, length)
        hashes.append(shingle)
        rows.append(shingle_row)
    return _sketch(np.concatenate(hashes), np.concatenate(rows), len(cut))


def _tokens(codes: Words, sort: NDArray[np.uint8], row: Integers) -> tuple[Words, Integers]:
    """A hash of each token (a word, or one other character) and the row it stands in."""
    import numpy as np

    in_word = (sort == _WORD) | (sort == _UNSPACED)
    goes_on = np.zeros(len(codes), bool)
    goes_on[1:] = in_word[1:] & in_word[:-1]
    start = np.flatnonzero((sort != _SPACE) & ~goes_on)
    if not len(start):
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    place = np.arange(len(codes), dtype=np.uint32)
    first = np.repeat(place[start], np.diff(np.append(start, len(codes))))
    hashed = _mix(codes[start[0] :] + (place[start[0] :] - first) * np.uint32(0x9E3779B1))
    hashed[sort[start[0] :] == _SPACE] = 0
    return np.add.reduceat(hashed, start - start[0], dtype=np.uint32), row[start]


def _shingles(token: Words, row: Integers, length: int) -> tuple[Words, Integers]:
    """A hash of each run of `length` tokens; a row with fewer has one of all its tokens."""
    import numpy as np

    count = len(token)
    if not count:
        return token, row
    first = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
    tokens_of = np.diff(np.append(first, count))
    position = np.arange(count, dtype=np.int32) - np.repeat(first, tokens_of)
    left = np.repeat(tokens_of, tokens_of) - position
    padded = np.append(token, np.zeros(length, np.uint32))
    hashed = np.zeros(count, np.uint32)
    for ahead in range(length):
        hashed *= np.uint32(0x01000193)
        hashed += padded[ahead : ahead + count] * (left > ahead)
    begins = (left >= length) | (position == 0)
    return hashed[begins], row[begins]


def _mix(value: Words) -> Words:
    """The finaliser of MurmurHash3: every bit of the value changes half of the result's."""
    import numpy as np

    value = value ^ (value >> np.uint32(16))
    value = value * np.uint32(0x85EBCA6B)
    value ^= value >> np.uint32(13)
    value *= np.uint32(0xC2B2AE35)
    value ^= value >> np.uint32(16)
    return value


def _sketch(shingle: Words, row: Integers, rows: int) -> Sketches:
    """For each of the 64 values of a row, the first shingle to fall on it.

    In each round all shingles are thrown at the values anew, and the lowest hash wins; once a row
    has all its values, later rounds change nothing, so long rows are done after one. From round 64
    on every shingle falls on the value of the round, which ends it for rows of one shingle.
    """
    import numpy as np

    values = np.full(rows * VALUES, _EMPTY, np.uint32)
    for turn in range(2 * VALUES):
        hashed = _mix(shingle ^ np.uint32(turn * 0x9E3779B1 & 0xFFFF_FFFF))
        bin_of = hashed >> np.uint32(26) if turn < VALUES else np.uint32(turn - VALUES)
        ranked = hashed & np.uint32(0x1FF_FFFF) | np.uint32(turn << 25)
        np.minimum.at(values, row * VALUES + bin_of, ranked)
        unfinished = (values.reshape(rows, VALUES) == _EMPTY).any(axis=1)[row]
        if not unfinished.any():
            break
        shingle, row = shingle[unfinished], row[unfinished]
    short: Sketches = (values & np.uint32(0xFFFF)).astype(np.uint16)
    return short.reshape(rows, VALUES)


def clusters(sketch: Sketches, digest: NDArray[np.uint64]) -> Integers:
    """The number of each row's cluster, which is the index of the first row in it.

    A cluster holds every row that is near to another of it, so its ends may be less alike. Which
    rows come together does not depend on their order: `digest` tells their contents apart.

    In a bucket of more than 5 rows that share a band (rows made from one pattern) a row is
    compared with its 4 neighbours on either side, ordered by the band after it; then one row of
    each cluster is compared with those of the others, until no two of them are found to be near.
    """
    import numpy as np

    if not len(sketch):
        return np.zeros(0, np.int64)
    label, all_compared = _near(sketch, digest)
    while not all_compared:
        order = np.lexsort((digest, label))
        chosen = order[np.append(True, label[order][1:] != label[order][:-1])]
        found, all_compared = _near(sketch[chosen], digest[chosen])
        if (found == np.arange(len(found))).all():
            break
        label = connected(label, chosen, chosen[found])
    return label


def _near(sketch: Sketches, digest: NDArray[np.uint64]) -> tuple[Integers, bool]:
    """The first row that each row is connected with, and whether no bucket was too large."""
    import numpy as np

    label = np.arange(len(sketch))
    keys = sketch.view(np.uint64)
    all_compared = True
    for band in range(keys.shape[1]):
        key, following = keys[:, band], keys[:, (band + 1) % keys.shape[1]]
        shared = _not_alone(key)
        order = shared[np.lexsort((digest[shared], following[shared], key[shared]))]
        for ahead in range(1, _WINDOW + 1):
            left, right = order[:-ahead], order[ahead:]
            asked = (key[left] == key[right]) & (label[left] != label[right])
            left, right = left[asked], right[asked]
            near = agreement(sketch, left, right) >= AGREEING
            label = connected(label, left[near], right[near])
        beyond = _WINDOW + 1
        all_compared &= not (key[order[:-beyond]] == key[order[beyond:]]).any()
    return label, all_compared


def _not_alone(key: NDArray[np.uint64]) -> Integers:
    """The indices of the keys that stand more than once."""
    import numpy as np

    order = np.argsort(key, kind="stable")
    ordered = key[order]
    same = np.zeros(len(key) + 1, bool)
    same[1:-1] = ordered[1:] == ordered[:-1]
    shared: Integers = order[same[1:] | same[:-1]]
    return shared


def agreement(sketch: Sketches, left: Integers, right: Integers) -> Integers:
    """How many of the 64 values agree, for each pair of rows."""
    import numpy as np

    counts = [np.zeros(0, np.int64)]
    for begin in range(0, len(left), 1 << 15):  # some megabytes at a time
        part = slice(begin, begin + (1 << 15))
        counts.append((sketch[left[part]] == sketch[right[part]]).sum(axis=1))
    return np.concatenate(counts)


def connected(label: Integers, left: Integers, right: Integers) -> Integers:
    """The clusters after those of each pair have become one, by the index of their first rows."""
    import numpy as np

    label = label.copy()
    while True:
        a, b = label[left], label[right]
        apart = a != b
        if not apart.any():
            return label
        left, right, a, b = left[apart], right[apart], a[apart], b[apart]
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while (jumped := label[label]).tobytes() != label.tobytes():
            label = jumped
