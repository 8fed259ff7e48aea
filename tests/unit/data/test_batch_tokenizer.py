from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import trainers as bpe

from palmswift.data.batch_tokenizer import BatchTokenizer
from palmswift.data.quick_bpe import QWEN

ADDED = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")


def tokenizer(*added: AddedToken, normalizer: Any = None) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizer or normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = bpe.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(
        ["你好吗，早上好。", "hello world's end\n\n", "user\nassistant\n"], trainer
    )
    made.add_tokens(list(added) or [AddedToken(token, normalized=False) for token in ADDED])
    return made


REAL = tokenizer()
BATCH = BatchTokenizer(REAL, worth=1)

pieces = [
    "你好",
    "user\n",
    "'s",
    " ",
    "\n",
    "é",
    "e\u0301",
    "\u0301",
    "\u212b",
    "가",
    "\u1100\u1161",
]
pieces += ["\u0378", "👍", "<", "|>", "<|im_", "<think", *ADDED]
texts = st.one_of(st.text(), st.lists(st.sampled_from(pieces), max_size=8).map("".join))


@given(st.lists(texts, max_size=6))
def test_the_tokens_are_those_of_the_tokenizer(given_texts: list[str]) -> None:
    expected = [REAL.encode(text, add_special_tokens=False).ids for text in given_texts]
    assert [tokens.ids for tokens in BATCH.tokenize(given_texts)] == expected


@given(texts, st.sampled_from(ADDED), texts)
def test_a_text_has_the_same_tokens_cut_at_a_separator(
    before: str, separator: str, after: str
) -> None:
    assert separator in BATCH.separators
    whole = REAL.encode(before + separator + after, add_special_tokens=False).ids
    cut = [token for tokens in BATCH.tokenize([before, separator, after]) for token in tokens.ids]
    assert cut == whole


@pytest.mark.parametrize(
    "other",
    [
        AddedToken("x<|im_end|>", normalized=False),
        AddedToken("x<|", normalized=False),
        AddedToken("<|im_end|>x", normalized=False),
    ],
    ids=str,
)
def test_a_token_that_another_may_swallow_separates_nothing(other: AddedToken) -> None:
    end = AddedToken("<|im_end|>", normalized=False)
    assert "<|im_end|>" not in BatchTokenizer(tokenizer(end, other)).separators


@pytest.mark.parametrize("key", ["lstrip", "rstrip", "single_word", "normalized"])
def test_a_token_that_looks_beside_itself_separates_nothing(key: str) -> None:
    end = AddedToken("<|im_end|>", **{"normalized": False, key: True})
    assert not BatchTokenizer(tokenizer(end)).separators


def test_another_normal_form_is_left_to_the_tokenizer() -> None:
    real = tokenizer(normalizer=normalizers.NFKC())
    (tokens,) = BatchTokenizer(real).tokenize(["ﬁ①"])
    assert tokens.ids == real.encode("ﬁ①", add_special_tokens=False).ids


def test_nothing_is_cut_for_a_tokenizer_that_looks_at_the_start_of_a_text() -> None:
    described = json.loads(REAL.to_str())
    described["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "first",
        "split": True,
    }
    assert not BatchTokenizer(Tokenizer.from_str(json.dumps(described))).separators
