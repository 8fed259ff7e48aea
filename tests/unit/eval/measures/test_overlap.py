"""BLEU, chrF and ROUGE against the packages that others compute them with."""

from __future__ import annotations

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_chinese import Rouge as RougeChinese
from rouge_score.rouge_scorer import RougeScorer

from palmswift.eval.measures.overlap import (
    BleuTokenizer,
    best_rouge,
    bleu_tokenizer,
    bleu_tokens,
    corpus_bleu,
    corpus_chrf,
    is_exact,
    rouge,
    sentence_bleu,
    sentence_chrf,
)
from palmswift.eval.measures.tokens import characters, words

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)
MIXED = st.text(alphabet="天地人你我的 的abcXY12.,。！", max_size=30)
ENGLISH = st.text(alphabet="abc AB 12.,'-_\n", max_size=40)
PAIRS = st.lists(st.tuples(MIXED, MIXED), min_size=1, max_size=5)


@given(ANY_TEXT)
@settings(max_examples=100, deadline=None)
def test_identical_text_has_the_highest_score_whatever_it_is(text: str) -> None:
    assert is_exact(text, text)
    assert sentence_chrf(text, text) == pytest.approx(100)
    assert sentence_bleu(text, [text]) == pytest.approx(100)
    assert rouge(text, text, "characters") == (100, 100, 100)
    assert rouge(text, text, "words") == (100, 100, 100)


@given(st.lists(ANY_TEXT, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_identical_lists_have_the_highest_corpus_score(texts: list[str]) -> None:
    assert corpus_bleu(texts, texts).value == pytest.approx(100)
    assert corpus_chrf(texts, texts).value == pytest.approx(100)


@given(PAIRS)
@settings(max_examples=100, deadline=None)
def test_bleu_and_chrf_of_a_corpus_are_sacrebleus(pairs: list[tuple[str, str]]) -> None:
    answers, references = [a for a, _ in pairs], [r for _, r in pairs]
    same = all(is_exact(answer, reference) for answer, reference in pairs)
    for tokenize in ("zh", "13a"):
        metric = sacrebleu.metrics.BLEU(tokenize=tokenize, effective_order=True)
        theirs = 100 if same else metric.corpus_score(answers, [references]).score
        ours = corpus_bleu(answers, references, tokenize)
        assert ours.value == pytest.approx(theirs, abs=1e-6)
        if not same:
            assert ours.signature == str(metric.get_signature())
    chrf = sacrebleu.metrics.CHRF()
    theirs = 100 if same else chrf.corpus_score(answers, [references]).score
    assert corpus_chrf(answers, references).value == pytest.approx(theirs, abs=1e-6)


@given(MIXED, st.lists(MIXED, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_one_answer_with_several_references_scores_as_in_sacrebleu(
    answer: str, references: list[str]
) -> None:
    if any(is_exact(answer, reference) for reference in references):
        assert sentence_bleu(answer, references) == sentence_chrf(answer, references) == 100
        return
    tokenize = bleu_tokenizer(references)
    bleu = sacrebleu.metrics.BLEU(tokenize=tokenize, effective_order=True)
    theirs = bleu.sentence_score(answer, references).score
    assert sentence_bleu(answer, references) == pytest.approx(theirs, abs=1e-6)
    chrf = sacrebleu.metrics.CHRF().sentence_score(answer, references).score
    assert sentence_chrf(answer, references) == pytest.approx(chrf, abs=1e-6)


@given(st.one_of(ANY_TEXT, MIXED))
@settings(max_examples=300, deadline=None)
def test_texts_are_cut_as_sacrebleu_cuts_them(text: str) -> None:
    names: tuple[BleuTokenizer, ...] = ("zh", "13a")
    for name in names:
        theirs = sacrebleu.metrics.BLEU(tokenize=name).tokenizer(text.rstrip()).split()
        assert bleu_tokens(text, name) == theirs


def test_different_numbers_of_references_are_told_in_the_signature() -> None:
    score = corpus_bleu(["休诊", "开门"], [["休诊", "不开"], ["开门"]])
    assert score.value == pytest.approx(100)
    assert "nrefs:var" in score.signature
    assert "nrefs:2" in corpus_chrf(["a"], [["a", "b"]]).signature


@given(ENGLISH, ENGLISH)
@settings(max_examples=150, deadline=None)
def test_rouge_of_english_is_rouge_scores(answer: str, reference: str) -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    theirs = [100 * score.fmeasure for score in scorer.score(reference, answer).values()]
    if characters(answer) == characters(reference):  # rouge-score gives texts without pairs 0
        theirs = [100, 100, 100] if characters(answer) or is_exact(answer, reference) else [0] * 3
    for unit in ("characters", "words"):
        assert list(rouge(answer, reference, unit)) == pytest.approx(theirs, abs=1e-6)


@given(MIXED, MIXED)
@settings(max_examples=150, deadline=None)
def test_rouge_of_chinese_is_rouge_chineses_over_the_same_tokens(
    answer: str, reference: str
) -> None:
    for unit, cut in (("characters", characters), ("words", words)):
        first, second = cut(answer), cut(reference)
        if not first or not second or first == second:
            continue
        oracle = RougeChinese(exclusive=False)
        [theirs] = oracle.get_scores(" ".join(first), " ".join(second))
        ours = rouge(answer, reference, unit)
        assert ours.one == pytest.approx(100 * theirs["rouge-1"]["f"], abs=1e-5)
        assert ours.two == pytest.approx(100 * theirs["rouge-2"]["f"], abs=1e-5)
        # Its F of ROUGE-L weighs recall by precision over recall; precision and recall are plain.
        p, r = theirs["rouge-l"]["p"], theirs["rouge-l"]["r"]
        assert ours.longest == pytest.approx(200 * p * r / (p + r) if p + r else 0, abs=1e-6)


def test_identical_chinese_has_full_rouge_where_rouge_score_gives_nothing() -> None:
    text = "周一休诊。"
    assert RougeScorer(["rougeL"]).score(text, text)["rougeL"].fmeasure == 0
    assert rouge(text, text, "characters").longest == 100


def test_the_best_reference_counts_for_each_number_by_itself() -> None:
    found = best_rouge("天 地 人", ["天 地 我", "人 地 天"], "characters")
    assert found.one == 100
    assert found.two == pytest.approx(rouge("天 地 人", "天 地 我", "characters").two)


def test_chinese_answers_with_one_wrong_character_keep_most_of_their_bleu() -> None:
    reference = "挂号费普通号二十元，主任号六十元。"
    score = corpus_bleu([reference.replace("六", "五")], [reference])
    assert 70 < score.value < 100
    assert "tok:zh" in score.signature


def test_a_reference_in_chinese_decides_the_tokenizer() -> None:
    assert bleu_tokenizer(["hello", "世界"]) == "zh"
    assert bleu_tokenizer(["hello"]) == "13a"
    assert bleu_tokenizer(["𠮷"]) == "zh"


def test_exact_match_folds_outer_whitespace_and_nothing_else() -> None:
    assert is_exact(" 好的。\n", "好的。")
    assert not is_exact("好的.", "好的。")
    assert not is_exact("Yes", "yes")
