from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palmswift.data.near import AGREEING, LONGEST, VALUES, agreement, clusters, sketches

Integers = NDArray[np.int64]

HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 2000)]
WORDS = [f"word{number}" for number in range(2000)]


def shingles(parts: list[str], length: int) -> set[tuple[str, ...]]:
    starts = range(max(1, len(parts) - length + 1))
    return {tuple(parts[start : start + length]) for start in starts}


def jaccard(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    return len(first & second) / len(first | second)


class Pairs(NamedTuple):
    """Texts side by side, and how alike they are."""

    similarity: NDArray[np.float64]
    agreeing: Integers


def pairs_of(alphabet: list[str], length: int, sizes: tuple[int, ...], changes: float) -> Pairs:
    """Pairs of texts, the second with some of its parts changed; the same at every run."""
    random_ = random.Random(length)
    glue = "" if length == 5 else " "
    texts, exact = [], []
    for number in range(600):
        first = random_.choices(alphabet, k=sizes[number % len(sizes)])
        second = list(first)
        for _ in range(random_.randint(1, max(1, round(changes * len(first))))):
            second[random_.randrange(len(second))] = random_.choice(alphabet)
        texts += [glue.join(first), glue.join(second)]
        exact.append(jaccard(shingles(first, length), shingles(second, length)))
    sketch = sketches(texts)
    even = np.arange(0, len(texts), 2)
    return Pairs(np.array(exact), agreement(sketch, even, even + 1))


CHINESE = pairs_of(HAN, 5, (20, 60, 200, 600), 0.08)
ENGLISH = pairs_of(WORDS, 3, (12, 40, 120, 350), 0.12)


@pytest.mark.parametrize("pairs", [CHINESE, ENGLISH], ids=["Chinese", "English"])
def test_sketches_agree_as_often_as_the_sets_of_shingles_do(pairs: Pairs) -> None:
    error = pairs.agreeing / VALUES - pairs.similarity
    assert abs(error.mean()) < 0.01
    assert error.std() < 0.06


@pytest.mark.parametrize("pairs", [CHINESE, ENGLISH], ids=["Chinese", "English"])
def test_near_and_far_pairs_are_told_apart_as_often_as_is_said(pairs: Pairs) -> None:
    near = pairs.agreeing >= AGREEING
    assert near[pairs.similarity >= 0.9].mean() > 0.96
    assert near[pairs.similarity <= 0.65].mean() < 0.03
    assert min((pairs.similarity >= 0.9).sum(), (pairs.similarity <= 0.65).sum()) > 30


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_a_text_has_one_sketch_whatever_stands_beside_it(texts: list[str]) -> None:
    together = sketches(texts)
    assert together.shape == (len(texts), VALUES)
    for number, text in enumerate(texts):
        assert (sketches([text])[0] == together[number]).all()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("请问，几点开门？", "请问,几点 开门?"),
        ("ＡＢＣ１２３", "abc123"),
        ("Hello there,  general", "hello THERE ,\ngeneral"),
        ("第 ３ 诊室", "第3诊室"),
    ],
)
def test_case_width_and_spacing_do_not_count(first: str, second: str) -> None:
    one, other = sketches([first, second])
    assert (one == other).all()


@pytest.mark.parametrize(
    ("first", "second"),
    [("is 5 < 7 ?", "is 5 > 7 ?"), ("3 + 5", "3 - 5"), ("一二三四五", "一二三四六")],
)
def test_what_changes_the_meaning_of_a_short_text_counts(first: str, second: str) -> None:
    one, other = sketches([first, second])
    assert (one == other).sum() < AGREEING


def test_what_comes_after_the_longest_text_is_not_looked_at() -> None:
    text = "".join(random.Random(0).choices(HAN, k=LONGEST))
    one, other = sketches([text, text + "完全不同" * 100_000])
    assert (one == other).all()


def near_families(count: int, head: str = "") -> list[str]:
    """`count` texts and, after each third of them, a text that is nearly the same."""
    random_ = random.Random(count)
    texts = []
    for number in range(count):
        text = head + "".join(random_.choices(HAN, k=90))
        texts.append(text)
        if number % 3 == 0:
            texts.append(text[:-2] + "改了")
    return texts


def members(label: Integers) -> set[frozenset[int]]:
    groups: dict[int, set[int]] = {}
    for row, first in enumerate(label.tolist()):
        groups.setdefault(first, set()).add(row)
    return {frozenset(group) for group in groups.values()}


def numbers(count: int) -> NDArray[np.uint64]:
    return np.random.default_rng(count).integers(0, 2**63, count).astype(np.uint64)


# A long head in common puts all rows into the same buckets, though they are not near.
@pytest.mark.parametrize("head", ["", "".join(HAN[:130])], ids=["unrelated", "one pattern"])
def test_clusters_hold_the_rows_that_are_nearly_the_same(head: str) -> None:
    texts = near_families(120, head)
    sketch = sketches(texts)
    label = clusters(sketch, numbers(len(texts)))
    everyone = np.arange(len(texts))
    by_brute_force = np.concatenate(
        [agreement(sketch, everyone, np.roll(everyone, shift)) for shift in everyone[1:]]
    )
    together = {frozenset(group) for group in members(label) if len(group) > 1}
    assert len(together) == 40
    assert all(max(group) - min(group) == 1 for group in together)
    assert (by_brute_force >= AGREEING).sum() == 80  # each pair from either side


@pytest.mark.parametrize("head", ["", "".join(HAN[:130])], ids=["unrelated", "one pattern"])
def test_which_rows_come_together_does_not_depend_on_their_order(head: str) -> None:
    texts = near_families(90, head)
    sketch, digest = sketches(texts), numbers(len(texts))
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = members(clusters(sketch[order], digest[order]))
    named = {frozenset(order[list(group)].tolist()) for group in shuffled}
    assert named == members(clusters(sketch, digest))


def test_a_cluster_is_named_after_its_first_row_and_may_be_a_chain() -> None:
    first = np.zeros((1, VALUES), np.uint16)
    chain = np.repeat(first, 4, axis=0)
    for row in range(1, 4):  # each agrees with the one before in 56 of 64, the ends in 40
        chain[row:, 8 * row : 8 * row + 8] = row
    assert clusters(chain, numbers(4)).tolist() == [0, 0, 0, 0]
    assert int(agreement(chain, np.array([0]), np.array([3]))[0]) < AGREEING


def test_no_rows_make_no_clusters() -> None:
    assert len(clusters(np.zeros((0, VALUES), np.uint16), numbers(0))) == 0
