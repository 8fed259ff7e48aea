"""The names of all that is measured, how each is read, and the functions of the cheap ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, WithJsonSchema

from palmswift.eval.measures import overlap
from palmswift.eval.measures.diversity import distinct, entropy, repetition, self_bleu
from palmswift.eval.measures.tokens import similarity

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

PerAnswerFunction = Callable[[str, Sequence[str]], float]
"""Of an answer and its references."""


class PerAnswer(NamedTuple):
    """A metric that one answer has by itself."""

    function: PerAnswerFunction
    needs_reference: bool = True


PER_ANSWER: dict[str, PerAnswer] = {
    "exact_match": PerAnswer(lambda answer, of: float(overlap.is_any(answer, of))),
    "chrf": PerAnswer(overlap.sentence_chrf),
    "bleu": PerAnswer(overlap.sentence_bleu),
    "rouge_1": PerAnswer(lambda answer, of: overlap.best_rouge(answer, of, "characters").one),
    "rouge_2": PerAnswer(lambda answer, of: overlap.best_rouge(answer, of, "characters").two),
    "rouge_l": PerAnswer(lambda answer, of: overlap.best_rouge(answer, of, "characters").longest),
    "rouge_1_word": PerAnswer(lambda answer, of: overlap.best_rouge(answer, of, "words").one),
    "rouge_2_word": PerAnswer(lambda answer, of: overlap.best_rouge(answer, of, "words").two),
    "rouge_l_word": PerAnswer(lambda answer, of: overlap.best_rouge(answer, of, "words").longest),
    "similarity": PerAnswer(
        lambda answer, of: max(similarity(answer.strip(), text.strip()) for text in of)
    ),
    "repetition": PerAnswer(lambda answer, of: repetition(answer), needs_reference=False),
}
"""The cheap metrics of one answer, by name; they load no model and send nothing."""

CORPUS: dict[str, Callable[[Sequence[str], Sequence[str | Sequence[str]]], overlap.CorpusScore]] = {
    "bleu": overlap.corpus_bleu,
    "chrf": overlap.corpus_chrf,
}
"""The metrics of many answers that are not the mean of the answers' own."""

DIVERSITY: dict[str, Callable[[Sequence[str]], float | None]] = {
    "distinct_1": lambda answers: distinct(answers, 1),
    "distinct_2": lambda answers: distinct(answers, 2),
    "self_bleu": self_bleu,
    "entropy": entropy,
}
"""The metrics of many answers that need no reference; None: too few answers to say."""

NAMES: dict[TextMetric, tuple[str, ...]] = {
    "exact_match": ("exact_match",),
    "chrf": ("chrf",),
    "bleu": ("bleu",),
    "rouge": (
        *("rouge_1", "rouge_2", "rouge_l"),
        *("rouge_1_word", "rouge_2_word", "rouge_l_word"),
    ),
    "similarity": ("similarity",),
    "bertscore": ("bertscore",),
    "perplexity": ("perplexity", "nats_per_token", "bits_per_byte"),
    "diversity": ("distinct_1", "distinct_2", "self_bleu", "entropy", "repetition"),
}
"""What each thing that can be asked for gives."""


def answer_scores(
    answer: str, references: Sequence[str], metrics: Iterable[TextMetric]
) -> dict[str, float]:
    """The cheap metrics of one answer that were asked for; without references, those that need
    none. BLEU of one answer is left to those who ask for it by an assertion."""
    return {
        name: PER_ANSWER[name].function(answer, references)
        for metric in metrics
        for name in NAMES[metric]
        if name in PER_ANSWER
        and name != "bleu"
        and (references or not PER_ANSWER[name].needs_reference)
    }


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
