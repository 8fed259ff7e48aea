"""How much of a reference's wording an answer shares: BLEU, chrF and ROUGE, for any script.

Scores are 0 to 100, and 100 for the same text, be it empty, one emoji or Chinese. BLEU and chrF
are sacrebleu's to the last digit (tests hold them to it); they are counted here, once an answer,
so that the score of any group of answers is a sum.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from palmswift.eval.measures.tokens import characters, has_chinese, lcs_length, words

References = Sequence[str]
BleuTokenizer = Literal["zh", "13a"]
_ORDERS = 4
_CHRF_ORDERS = 6
_BETA_SQUARED = 4
_KEPT = 1 << 16


class CorpusScore(NamedTuple):
    """A score of a whole list of pairs, and the settings it was computed with."""

    value: float
    """0 to 100."""
    signature: str
    """sacrebleu's signature: two scores compare only when these are equal."""


def is_exact(answer: str, reference: str) -> bool:
    """Whether the two are the same text, outer whitespace apart; nothing else is folded."""
    return answer.strip() == reference.strip()


def is_any(answer: str, references: References) -> bool:
    """Whether the answer is one of the references."""
    return any(is_exact(answer, reference) for reference in references)


def bleu_tokenizer(references: Iterable[str]) -> BleuTokenizer:
    """`zh` (each Chinese character a token, the rest as 13a) when any reference has Chinese.

    With 13a a Chinese sentence is one token, and a near-perfect answer scores 0.
    """
    return "zh" if any(map(has_chinese, references)) else "13a"


def corpus_bleu(
    answers: Sequence[str],
    references: Sequence[str | References],
    tokenize: BleuTokenizer | None = None,
) -> CorpusScore:
    """sacrebleu's corpus BLEU (smoothing exp, effective order); 100 for identical texts."""
    lists = [_listed(of) for of in references]
    cut = tokenize or bleu_tokenizer(reference for of in lists for reference in of)
    counts = [_bleu_counts(a, of, cut) for a, of in zip(answers, lists, strict=True)]
    value = 100.0 if _all_exact(answers, lists) else bleu_of(_sum(counts))
    return CorpusScore(value, _bleu_signature(cut, _reference_count(lists)))


def sentence_bleu(answer: str, references: References) -> float:
    """BLEU of one answer, 0 to 100; BLEU is made for many answers, and is rough on one."""
    return corpus_bleu([answer], [references]).value


def corpus_chrf(answers: Sequence[str], references: Sequence[str | References]) -> CorpusScore:
    """sacrebleu's corpus chrF2; 100 for identical texts of any length or script."""
    lists = [_listed(of) for of in references]
    counts = [_chrf_counts(a, of) for a, of in zip(answers, lists, strict=True)]
    value = (
        100.0 if _all_exact(answers, lists) else _chrf([sum(c) for c in zip(*counts, strict=True)])
    )
    return CorpusScore(value, _chrf_signature(_reference_count(lists)))


def sentence_chrf(answer: str, references: str | References) -> float:
    """chrF2 of one answer, 0 to 100; of several references, the nearest counts."""
    listed = _listed(references)
    return 100.0 if is_any(answer, listed) else _chrf(_chrf_counts(answer, listed))


class Rouge(NamedTuple):
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 100."""

    one: float
    two: float
    longest: float


@lru_cache(maxsize=_KEPT)
def rouge(answer: str, reference: str, unit: Literal["characters", "words"]) -> Rouge:
    """ROUGE (Lin 2004) of one pair, over `tokens.characters` or `tokens.words`.

    Of English text it equals rouge-score's rouge1, rouge2 and rougeL. The same text scores 100 even
    where it has no token to count (punctuation) or too few for a pair.
    """
    if is_exact(answer, reference):
        return Rouge(100.0, 100.0, 100.0)
    cut = characters if unit == "characters" else words
    first, second = cut(answer), cut(reference)
    if first == second and first:  # they differ in case or punctuation alone
        return Rouge(100.0, 100.0, 100.0)
    shared = lcs_length(first, second)
    pairs = list(pairwise(first)), list(pairwise(second))
    return Rouge(
        _overlap_f1(first, second), _overlap_f1(*pairs), _f1(shared, len(first), len(second))
    )


def best_rouge(answer: str, references: References, unit: Literal["characters", "words"]) -> Rouge:
    """Each of the three against the reference that it is highest for."""
    found = [rouge(answer, reference, unit) for reference in references]
    return Rouge(*(max(of) for of in zip(*found, strict=True)))


def _overlap_f1(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    shared = _shared(Counter(first), Counter(second))
    return _f1(shared, len(first), len(second))


def _f1(shared: int, first: int, second: int) -> float:
    return 200.0 * shared / (first + second) if shared else 0.0


def _listed(references: str | References) -> tuple[str, ...]:
    return (references,) if isinstance(references, str) else tuple(references)


def _all_exact(answers: Sequence[str], references: Sequence[References]) -> bool:
    # Texts without a single n-gram (empty, one space) score 0 in sacrebleu even when identical.
    return all(is_any(a, of) for a, of in zip(answers, references, strict=True))


def _reference_count(references: Sequence[References]) -> int | None:
    counts = {len(of) for of in references}
    return counts.pop() if len(counts) == 1 else None


@lru_cache(maxsize=4)
def _tokenizer(name: BleuTokenizer) -> Callable[[str], str]:
    from sacrebleu.metrics import BLEU

    cut: Callable[[str], str] = BLEU(tokenize=name).tokenizer
    return cut


class BleuCounts(NamedTuple):
    """What BLEU is made of; the counts of many answers are added up."""

    size: int
    """Tokens of the answer."""
    reference: int
    """Tokens of the reference nearest in length."""
    matches: list[int]
    """For n-grams of 1 to 4 tokens: those that a reference has too."""
    totals: list[int]


def bleu_tokens(text: str, name: BleuTokenizer) -> list[str]:
    """The text as sacrebleu cuts it.

    Its `zh` rules but those for `.`, `,` and `-` look at one character at a time; a table of the
    characters that it sets apart is five times faster than its expressions.
    """
    if name == "zh" and not _BY_NEIGHBOURS.search(text):
        return text.translate(_APART).split()
    return _tokenizer(name)(text.rstrip()).split()


class _Apart(dict[int, str]):
    """For str.translate: each character as sacrebleu's `zh` leaves it, asked when it comes up."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        alone = _tokenizer("zh")(f"a{character}a").split() == ["a", character, "a"]
        self[code] = f" {character} " if alone else character
        return self[code]


_APART = _Apart()
_BY_NEIGHBOURS = re.compile("[.,-]")


@lru_cache(maxsize=_KEPT)
def _bleu_counts(answer: str, references: tuple[str, ...], name: BleuTokenizer) -> BleuCounts:
    tokens = bleu_tokens(answer, name)
    others = [bleu_tokens(reference, name) for reference in references]
    nearest = min((abs(len(other) - len(tokens)), len(other)) for other in others)[1]
    matches, totals = [], []
    for order in range(1, _ORDERS + 1):
        own, (most, *rest) = grams(tokens, order), (grams(other, order) for other in others)
        for more in rest:
            most |= more
        matches.append(_shared(own, most))
        totals.append(max(len(tokens) - order + 1, 0))
    return BleuCounts(len(tokens), nearest, matches, totals)


def _sum(counts: Sequence[BleuCounts]) -> BleuCounts:
    return BleuCounts(
        sum(count.size for count in counts),
        sum(count.reference for count in counts),
        [sum(count.matches[n] for count in counts) for n in range(_ORDERS)],
        [sum(count.totals[n] for count in counts) for n in range(_ORDERS)],
    )


def grams(tokens: Sequence[str], order: int) -> Counter[Any]:
    """The n-grams of a text and how often each stands there."""
    if order == 1:
        return Counter(tokens)
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _shared(first: Counter[Any], second: Counter[Any]) -> int:
    """How many items the two have in common, each as often as both have it."""
    common = first.keys() & second.keys()
    return sum(map(min, map(first.__getitem__, common), map(second.__getitem__, common)))


def bleu_of(counts: BleuCounts) -> float:
    """BLEU of the counts, 0 to 100; smoothing and all as sacrebleu's."""
    from sacrebleu.metrics import BLEU

    score = BLEU.compute_bleu(
        correct=list(counts.matches),
        total=list(counts.totals),
        sys_len=counts.size,
        ref_len=counts.reference,
        smooth_method="exp",
        # Short answers have no 4-grams at all; without it identical ones would score 0.
        effective_order=True,
    )
    return float(score.score)


@lru_cache(maxsize=_KEPT)
def _chrf_counts(answer: str, references: tuple[str, ...]) -> list[int]:
    """For n-grams of 1 to 6 characters: of the answer, of the nearest reference, in common."""
    own = _character_grams(answer)
    best: list[int] = []
    value = -1.0
    for reference in references:
        counts: list[int] = []
        other = _character_grams(reference)
        for (first, length), (second, of) in zip(own, other, strict=True):
            counts += [length if of else 0, of, _shared(first, second)]
        found = _chrf(counts)
        if found > value:
            best, value = counts, found
    return best


def _character_grams(text: str) -> list[tuple[Counter[str], int]]:
    """For 1 to 6 characters, without whitespace: the n-grams, and how many they are."""
    packed = "".join(text.split())
    found = []
    for order in range(1, _CHRF_ORDERS + 1):
        count = max(len(packed) - order + 1, 0)
        found.append((Counter([packed[i : i + order] for i in range(count)]), count))
    return found


def _chrf(counts: Sequence[int]) -> float:
    """chrF2 (Popović 2015), averaged over the orders that both sides have, as sacrebleu does."""
    precision = recall = 0.0
    orders = 0
    for own, other, shared in zip(counts[::3], counts[1::3], counts[2::3], strict=True):
        if own and other:
            precision += shared / own
            recall += shared / other
            orders += 1
    if precision + recall == 0:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return 100 * (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)


@lru_cache(maxsize=64)
def _bleu_signature(name: BleuTokenizer, references: int | None) -> str:
    from sacrebleu.metrics import BLEU

    return _signature(BLEU(tokenize=name, effective_order=True), references)


@lru_cache(maxsize=64)
def _chrf_signature(references: int | None) -> str:
    from sacrebleu.metrics import CHRF

    return _signature(CHRF(), references)


def _signature(metric: object, references: int | None) -> str:
    """sacrebleu's own words for the settings; it knows the number of references once it scored."""
    score, signature = (getattr(metric, name) for name in ("corpus_score", "get_signature"))
    if references is None:  # different numbers: a list with a gap makes it say `var`
        score(["a", "a"], [["a", "a"], ["a", None]])
    else:
        score(["a"], [["a"]] * references)
    return str(signature())
