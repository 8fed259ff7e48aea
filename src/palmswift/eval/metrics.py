"""Text metrics of answers against references, and statistics of response times."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

TextMetric = Literal["exact_match", "chrf", "bleu"]
MetricName = Literal[
    "exact_match",
    "chrf",
    "bleu",
    "pass_rate",
    "answer_rate",
    "error_rate",
    "latency_mean",
    "latency_p50",
    "latency_p95",
]
"""What a summary can hold and a gate can bound."""

_CJK = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


class CorpusScore(NamedTuple):
    """A score of a whole list of pairs, and the settings it was computed with."""

    value: float
    """0 to 100."""
    signature: str
    """sacrebleu's signature: two scores compare only when these are equal."""


def is_exact(answer: str, reference: str) -> bool:
    """Whether the two are the same text, outer whitespace apart; nothing else is folded."""
    return answer.strip() == reference.strip()


def bleu_tokenizer(references: Sequence[str]) -> Literal["zh", "13a"]:
    """`zh` (each Chinese character a token, the rest as 13a) when any reference has Chinese.

    With 13a a Chinese sentence is one token, and a near-perfect answer scores 0.
    """
    return "zh" if any(_CJK.search(reference) for reference in references) else "13a"


def corpus_bleu(answers: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """sacrebleu's corpus BLEU; 100 for identical texts of any length or script."""
    from sacrebleu.metrics import BLEU

    # Short answers have no 4-grams at all; without effective_order identical ones score 0.
    metric = BLEU(tokenize=bleu_tokenizer(references), effective_order=True)
    return _corpus(metric, answers, references)


def corpus_chrf(answers: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """sacrebleu's corpus chrF2; 100 for identical texts of any length or script."""
    from sacrebleu.metrics import CHRF

    return _corpus(CHRF(), answers, references)


def sentence_chrf(answer: str, reference: str) -> float:
    """chrF2 of one pair, 0 to 100."""
    return corpus_chrf([answer], [reference]).value


def _corpus(metric: Any, answers: Sequence[str], references: Sequence[str]) -> CorpusScore:
    pairs = list(zip(answers, references, strict=True))
    result = metric.corpus_score(list(answers), [list(references)])
    # Texts without a single n-gram (empty, one space) score 0 in sacrebleu even when identical.
    same = all(is_exact(answer, reference) for answer, reference in pairs)
    return CorpusScore(100.0 if same else float(result.score), str(metric.get_signature()))


class Latency(NamedTuple):
    """Statistics of response times, in seconds."""

    mean: float
    p50: float
    p95: float


def latency(seconds: Sequence[float]) -> Latency:
    """Mean and percentiles (linear interpolation, as numpy's default) of at least one time."""
    ordered = sorted(seconds)
    return Latency(
        math.fsum(ordered) / len(ordered), _quantile(ordered, 0.5), _quantile(ordered, 0.95)
    )


def _quantile(ordered: Sequence[float], q: float) -> float:
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
