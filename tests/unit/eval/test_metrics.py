from __future__ import annotations

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.eval.metrics import (
    bleu_tokenizer,
    corpus_bleu,
    corpus_chrf,
    is_exact,
    latency,
    sentence_chrf,
)

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)


@given(TEXT)
@settings(max_examples=60, deadline=None)
def test_identical_text_has_the_highest_score_whatever_it_is(text: str) -> None:
    assert is_exact(text, text)
    assert sentence_chrf(text, text) == pytest.approx(100)
    assert corpus_bleu([text], [text]).value == pytest.approx(100)


@given(st.lists(TEXT, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_identical_lists_have_the_highest_corpus_score(texts: list[str]) -> None:
    assert corpus_bleu(texts, texts).value == pytest.approx(100)
    assert corpus_chrf(texts, texts).value == pytest.approx(100)


def test_chinese_answers_with_one_wrong_character_keep_most_of_their_bleu() -> None:
    reference = "挂号费普通号二十元，主任号六十元。"
    score = corpus_bleu([reference.replace("六", "五")], [reference])
    assert 70 < score.value < 100
    assert "tok:zh" in score.signature


def test_bleu_is_sacrebleus_own() -> None:
    answers = ["the cat sat on the mat today", "a dog"]
    references = ["the cat sat on a mat today", "a big dog"]
    theirs = sacrebleu.corpus_bleu(answers, [references], use_effective_order=True)
    assert corpus_bleu(answers, references).value == pytest.approx(theirs.score)
    assert corpus_chrf(answers, references).value == pytest.approx(
        sacrebleu.corpus_chrf(answers, [references]).score
    )


def test_a_reference_in_chinese_decides_the_tokenizer() -> None:
    assert bleu_tokenizer(["hello", "世界"]) == "zh"
    assert bleu_tokenizer(["hello"]) == "13a"
    assert bleu_tokenizer(["𠮷"]) == "zh"


def test_exact_match_folds_outer_whitespace_and_nothing_else() -> None:
    assert is_exact(" 好的。\n", "好的。")
    assert not is_exact("好的.", "好的。")
    assert not is_exact("Yes", "yes")


def test_latency_interpolates_as_numpy_does() -> None:
    times = latency([4.0, 1.0, 3.0, 2.0])
    assert times == pytest.approx((2.5, 2.5, 3.85))
    assert latency([7.0]) == (7.0, 7.0, 7.0)
