from __future__ import annotations

import difflib

from hypothesis import example, given
from hypothesis import strategies as st

from palmswift.eval.measures.tokens import characters, lcs_length, similarity, words

SEQUENCE = st.lists(st.sampled_from("abc天"), max_size=70)


def table_lcs(first: list[str], second: list[str]) -> int:
    """The textbook's table."""
    row = [0] * (len(second) + 1)
    for left in first:
        above = row
        row = [0]
        for column, right in enumerate(second):
            row.append(above[column] + 1 if left == right else max(above[column + 1], row[-1]))
    return row[-1]


@given(SEQUENCE, SEQUENCE)
@example([], [])
@example(["a"] * 65, ["a"] * 64)
def test_the_longest_common_subsequence_is_the_tables(first: list[str], second: list[str]) -> None:
    assert lcs_length(first, second) == table_lcs(first, second) == lcs_length(second, first)


@given(st.text(max_size=20), st.text(max_size=20))
def test_similarity_is_symmetric_full_for_the_same_and_at_least_difflibs(a: str, b: str) -> None:
    assert similarity(a, a) == 1.0
    assert similarity(a, b) == similarity(b, a)
    assert 0 <= similarity(a, b) <= 1
    # difflib's blocks are one common subsequence, not always the longest
    assert similarity(a, b) >= difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() - 1e-12


def test_text_is_cut_into_han_characters_and_words_of_other_scripts() -> None:
    assert characters("挂号费20元, OK吗？") == ["挂", "号", "费", "20", "元", "ok", "吗"]
    assert words("推拿价格 is 20元") == ["推拿", "价格", "is", "20", "元"]
    assert characters("Привет мир 안녕 カナ") == ["привет", "мир", "안녕", "カ", "ナ"]
    assert characters("。！ 😀") == words("") == []
