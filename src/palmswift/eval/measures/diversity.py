"""How varied answers are: distinct n-grams, likeness to one another, entropy, repetition."""

from __future__ import annotations

import bisect
import math
import random
from collections import Counter
from collections.abc import Sequence

from palmswift.eval.measures.overlap import BleuCounts, bleu_of, bleu_tokenizer, bleu_tokens, grams
from palmswift.eval.measures.tokens import characters, words

_MOST = 1000
"""Answers that self-BLEU looks at; of more, a seeded draw."""
_REPEATED = 4
"""n of the n-grams whose repetition is counted (seq-rep-4, Welleck et al. 2020)."""


def distinct(answers: Sequence[str], order: int) -> float | None:
    """Different n-grams of words, of all of them, over all answers (Li et al. 2016): 0 to 1.

    It falls with the amount of text, so compare answers to the same questions only. None: the
    answers have no n-gram.
    """
    found = Counter[object]()
    for answer in answers:
        found.update(grams(words(answer), order))
    total = sum(found.values())
    return len(found) / total if total else None


def entropy(answers: Sequence[str]) -> float | None:
    """Shannon entropy of the words of all answers, in bits; None: there are no words."""
    return entropy_of(Counter(word for answer in answers for word in words(answer)))


def entropy_of(counts: Counter[str]) -> float | None:
    """Shannon entropy of a tally, in bits; None: it is empty."""
    total = sum(counts.values())
    if not total:
        return None
    # adding 0.0 makes the -0.0 of a single word a 0
    return -math.fsum(n / total * math.log2(n / total) for n in counts.values()) + 0.0


def repetition(answer: str) -> float:
    """The share of an answer's 4-grams of characters (Latin: of words) that stood there before:
    0 for prose, near 1 for a model that goes round in circles."""
    tokens = characters(answer)
    count = len(tokens) - _REPEATED + 1
    if count < 1:
        return 0.0
    return 1 - len(grams(tokens, _REPEATED)) / count


def self_bleu(answers: Sequence[str]) -> float | None:
    """The mean BLEU of each answer against all the others (Zhu et al. 2018), 0 to 100: how alike
    the answers to different questions are. None: fewer than two answers.

    It equals sacrebleu's sentence BLEU with the other answers as references, in time that grows
    with the text alone: of each n-gram the two answers that have it most are remembered.
    """
    if len(answers) < 2:
        return None
    chosen = list(answers)
    if len(chosen) > _MOST:
        chosen = random.Random(0).sample(chosen, _MOST)
    cut = bleu_tokenizer(chosen)
    texts = [bleu_tokens(answer, cut) for answer in chosen]
    lengths = sorted(len(tokens) for tokens in texts)
    tables = [_Most([grams(tokens, order) for tokens in texts]) for order in (1, 2, 3, 4)]
    scores = []
    for index, tokens in enumerate(texts):
        size = len(tokens)
        counts = BleuCounts(
            size,
            _nearest_other(lengths, size),
            [table.shared(index) for table in tables],
            [max(size - order + 1, 0) for order in (1, 2, 3, 4)],
        )
        scores.append(bleu_of(counts))
    return math.fsum(scores) / len(scores)


class _Most:
    """For each n-gram, the most that any answer has of it, and the most of any other answer."""

    def __init__(self, tallies: list[Counter[object]]) -> None:
        self._tallies = tallies
        self._first: dict[object, tuple[int, int]] = {}
        self._second: dict[object, int] = {}
        for index, tally in enumerate(tallies):
            for gram, count in tally.items():
                most, _ = self._first.get(gram, (0, -1))
                if count > most:
                    self._second[gram] = most
                    self._first[gram] = (count, index)
                else:
                    self._second[gram] = max(self._second.get(gram, 0), count)

    def shared(self, index: int) -> int:
        """How many n-grams of an answer some other answer has too, each as often as it has it."""
        total = 0
        for gram, count in self._tallies[index].items():
            most, owner = self._first[gram]
            total += min(count, self._second.get(gram, 0) if owner == index else most)
        return total


def _nearest_other(lengths: Sequence[int], size: int) -> int:
    """The length nearest to `size` when one `size` is taken out of the sorted lengths; of two, the
    shorter."""
    place = bisect.bisect_left(lengths, size)
    around = [lengths[i] for i in (place - 1, place + 1) if 0 <= i < len(lengths)]
    return min(around, key=lambda length: (abs(length - size), length))
