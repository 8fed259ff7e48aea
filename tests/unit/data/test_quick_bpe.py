from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from palmswift.data import quick_bpe as module
from palmswift.data.quick_bpe import QWEN, QuickBPE, quick_bpe

Merges = Sequence[tuple[str, str]]


def tokenizer(merges: Merges, pattern: str = QWEN, **settings: object) -> Tokenizer:
    vocab = {character: 7 * i for i, (_, character) in enumerate(module._byte_characters())}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab) * 7)
    made = Tokenizer(models.BPE(vocab=vocab, merges=list(merges), **settings))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


@pytest.fixture
def few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ORDINARY", ((0x20, 0x7E), (0x4E00, 0x4E10)))


@pytest.fixture(scope="module")
def quick() -> tuple[QuickBPE, Tokenizer]:
    real = tokenizer([("h", "e"), ("l", "l"), ("Ġ", "he"), ("Ġhe", "ll"), ("ä", "½"), ("Ċ", "Ċ")])
    made = quick_bpe(real)
    assert made is not None
    return made, real


ordinary = st.characters().filter(
    lambda c: any(first <= ord(c) <= last for first, last in module._ORDINARY)
)
pieces = st.sampled_from(
    ["hell", " hello", "你好", "\n\n", "  ", "'S", "'ll", "1", "。", "👍", "\r\n"]
)


@given(st.lists(st.lists(st.one_of(ordinary, pieces), max_size=12).map("".join), max_size=5))
@settings(max_examples=300)
def test_ordinary_texts_have_the_tokens_of_the_tokenizer(
    quick: tuple[QuickBPE, Tokenizer], texts: list[str]
) -> None:
    made, real = quick
    assert all(map(made.covers, texts))
    expected = [real.encode(text, add_special_tokens=False).ids for text in texts]
    assert [tokens.ids for tokens in made.tokenize(texts)] == expected


@pytest.mark.parametrize("text", ["e\u0301", "ſ", "\u212b", "\u1100\u1161", "\x85", "a" * 30_000])
def test_other_texts_are_not_covered(quick: tuple[QuickBPE, Tokenizer], text: str) -> None:
    assert not quick[0].covers(text)


@st.composite
def merge_lists(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Merges over three letters, each of what there is by then."""
    known = ["a", "b", "c"]
    merges: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(1, 12))):
        pair = draw(st.sampled_from(known)), draw(st.sampled_from(known))
        if "".join(pair) not in known:
            merges.append(pair)
            known.append("".join(pair))
    return merges


@given(merge_lists(), st.lists(st.text("abc", max_size=40), max_size=20))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_vocabulary_that_is_let_through_gives_the_same_tokens(
    few_characters: None, merges: list[tuple[str, str]], texts: list[str]
) -> None:
    real = tokenizer(merges)
    made = quick_bpe(real)
    assume(made is not None)
    assert made is not None
    expected = [real.encode(text, add_special_tokens=False).ids for text in texts]
    assert [tokens.ids for tokens in made.tokenize(texts)] == expected


@pytest.mark.parametrize(
    "merges",
    [
        [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")],
        [("b", "c"), ("a", "b"), ("ab", "c")],
    ],
    ids=["a token made by two merges", "a token that its own bytes are not merged to"],
)
def test_a_vocabulary_that_tiktoken_might_merge_otherwise_is_not_let_through(
    few_characters: None, merges: Merges
) -> None:
    assert quick_bpe(tokenizer(merges)) is None


def test_a_merge_of_what_is_made_only_later_is_not_let_through(few_characters: None) -> None:
    assert quick_bpe(tokenizer([("ab", "c"), ("a", "b")])) is None


@pytest.mark.parametrize("change", [{"dropout": 0.1}, {"continuing_subword_prefix": "##"}], ids=str)
def test_a_model_with_rules_of_its_own_is_not_let_through(
    few_characters: None, change: dict[str, Any]
) -> None:
    assert quick_bpe(tokenizer([], **change)) is None


def test_an_unknown_division_into_words_is_not_let_through(few_characters: None) -> None:
    assert quick_bpe(tokenizer([("a", "b")], pattern=r"\p{L}+|\p{N}")) is None


def test_characters_that_are_divided_otherwise_are_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = tokenizer([("s", "s")])
    monkeypatch.setattr(module, "_ORDINARY", ((0x20, 0x7E), (0x0300, 0x0310)))
    assert quick_bpe(real) is None
