from __future__ import annotations

from collections import Counter

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.eval.measures.diversity import distinct, entropy, entropy_of, repetition, self_bleu
from palmswift.eval.measures.overlap import bleu_tokenizer

TEXTS = st.lists(st.text(alphabet="ab 天地。", max_size=15), min_size=2, max_size=6)


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_self_bleu_is_the_mean_of_sacrebleus_against_all_the_others(texts: list[str]) -> None:
    metric = sacrebleu.metrics.BLEU(tokenize=bleu_tokenizer(texts), effective_order=True)
    each = [
        metric.sentence_score(text, texts[:i] + texts[i + 1 :]).score
        for i, text in enumerate(texts)
    ]
    assert self_bleu(texts) == pytest.approx(sum(each) / len(each), abs=1e-6)


def test_answers_that_are_all_alike_are_seen_as_such() -> None:
    assert self_bleu(["周一休诊，周二开门。"] * 3) == pytest.approx(100)
    assert self_bleu(["一"]) is None
    assert distinct(["a b", "a b"], 1) == 0.5
    assert distinct(["a b", "a b"], 2) == 0.5
    assert distinct(["", "。"], 1) is None


def test_entropy_is_in_bits() -> None:
    assert entropy(["a b c d"]) == pytest.approx(2)
    assert entropy(["a a a"]) == 0
    assert entropy([]) is None
    assert entropy_of(Counter("aab")) == pytest.approx(0.9182958)


def test_repetition_sees_circles_and_not_prose() -> None:
    assert repetition("我们周一休诊，其余时间早八点到晚八点都开门。") == 0
    assert repetition("好的" * 50) > 0.9
    assert repetition("go on " * 50) > 0.9
    assert repetition("") == repetition("短") == 0
