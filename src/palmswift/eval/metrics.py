"""Text metrics of answers against references, and statistics of response times."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, WithJsonSchema

TextMetric = Literal[
    "exact_match", "chrf", "bleu", "rouge", "similarity", "bertscore", "perplexity", "diversity"
]
"""What a suite or `score.py --metrics` can ask for; `rouge` and the last two give several numbers
each (see METRICS)."""


class Metric(NamedTuple):
    """How a number of this name is read."""

    label: str
    """English · Chinese."""
    scale: Literal["share", "hundred", "seconds", "nats", "bits", "rating", "plain"]
    """`share`: 0 to 1, shown as a percentage; `hundred`: 0 to 100; `rating`: 1 to 5."""
    per_answer: bool = True
    """Whether a single answer has it (`ScoredAnswer.scores`); else only a list of answers."""
    lower_is_better: bool = False


METRICS: dict[str, Metric] = {
    "pass_rate": Metric("Passed · 通过", "share", per_answer=False),
    "score": Metric("Score · 得分", "share"),
    "exact_match": Metric("Exact · 完全一致", "share"),
    "chrf": Metric("chrF", "hundred"),
    "bleu": Metric("BLEU", "hundred"),
    "rouge_1": Metric("ROUGE-1 (characters · 字)", "hundred"),
    "rouge_2": Metric("ROUGE-2 (characters · 字)", "hundred"),
    "rouge_l": Metric("ROUGE-L (characters · 字)", "hundred"),
    "rouge_1_word": Metric("ROUGE-1 (words · 词)", "hundred"),
    "rouge_2_word": Metric("ROUGE-2 (words · 词)", "hundred"),
    "rouge_l_word": Metric("ROUGE-L (words · 词)", "hundred"),
    "similarity": Metric("Similarity (edit) · 编辑相似度", "share"),
    "bertscore": Metric("BERTScore F1", "hundred"),
    "perplexity": Metric(
        "Perplexity of references · 参考答案困惑度", "plain", lower_is_better=True
    ),
    "nats_per_token": Metric("Loss of references · 参考答案损失", "nats", lower_is_better=True),
    "bits_per_byte": Metric(
        "Bits per byte of references · 每字节比特", "bits", lower_is_better=True
    ),
    "distinct_1": Metric("Distinct-1 · 一元多样性", "share", per_answer=False),
    "distinct_2": Metric("Distinct-2 · 二元多样性", "share", per_answer=False),
    "self_bleu": Metric("Self-BLEU · 自相似", "hundred", per_answer=False, lower_is_better=True),
    "entropy": Metric("Entropy of words · 词熵", "bits", per_answer=False),
    "repetition": Metric("Repetition · 重复", "share", lower_is_better=True),
    "agreement": Metric("Agreement of repeats · 重复一致", "share", per_answer=False),
    "answer_rate": Metric("Answered · 有回答", "share", per_answer=False),
    "error_rate": Metric("Errors · 出错", "share", per_answer=False, lower_is_better=True),
    "undecided_rate": Metric(
        "Undecided · 无法判定", "share", per_answer=False, lower_is_better=True
    ),
    "latency_mean": Metric(
        "Time, mean · 平均耗时", "seconds", per_answer=False, lower_is_better=True
    ),
    "latency_p50": Metric(
        "Time, median · 中位耗时", "seconds", per_answer=False, lower_is_better=True
    ),
    "latency_p95": Metric(
        "Time, 95th percentile · 95% 耗时", "seconds", per_answer=False, lower_is_better=True
    ),
}
"""Every number that a report can hold by name; a judge's are `judge.RUBRIC`, ratings of 1 to 5."""

LOWER_IS_BETTER = frozenset(name for name, metric in METRICS.items() if metric.lower_is_better)

_JUDGE = re.compile(r"judge\.[A-Za-z0-9_-]+")


def metric_of(name: str) -> Metric:
    """How the number called `name` is read; KeyError when there is no such metric."""
    if _JUDGE.fullmatch(name):
        rubric = name.removeprefix("judge.")
        return Metric(f"Judge, {rubric} · 评审：{rubric}", "rating")
    return METRICS[name]


def _known(name: str) -> str:
    from difflib import get_close_matches

    try:
        metric_of(name)
    except KeyError:
        like = get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {like[0]!r}?" if like else f"there are: {', '.join(METRICS)}"
        raise ValueError(f"no metric {name!r}; {hint}") from None
    return name


MetricName = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema(
        {"anyOf": [{"enum": list(METRICS)}, {"type": "string", "pattern": "^judge\\."}]}
    ),
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
