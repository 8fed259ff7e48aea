"""How alike a model's answers to one and the same prompt are, over repeats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from pydantic import BaseModel, ConfigDict

from palmswift.eval.measures.diversity import entropy_of
from palmswift.eval.measures.overlap import sentence_chrf
from palmswift.eval.measures.tokens import similarity
from palmswift.eval.suites.scoring import ScoredAnswer
from palmswift.eval.verdicts.resample import mean_interval

_MOST_PAIRS = 300
"""Pairs of answers to one prompt whose likeness is measured: all of 25 repeats."""


class Estimate(BaseModel):
    """A mean over prompts, with its 95% interval (prompts drawn again)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float | None
    """Null: there are fewer than two prompts."""
    high: float | None
    n: int
    """Prompts it is of."""


class PromptConsistency(BaseModel):
    """The repeats of one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    n: int
    """Replies; a reply that never stopped thinking is an answer of its own, the empty one."""
    agreement: float
    """The chance that two of its answers are the same text (outer whitespace apart): unbiased."""
    similarity: float
    """Mean likeness of two answers: 2 x longest common subsequence / lengths, 0 to 1."""
    chrf: float
    """Mean chrF2 of two answers, taken both ways, 0 to 100."""
    majority: str
    """The most frequent answer; of equals the first."""
    majority_share: float
    entropy: float
    """Of the different answers, in bits, as counted: it is too low for few repeats."""
    passed: int | None
    """How many passed; null where the case has no assertions or an answer was not decided."""

    @property
    def flaky(self) -> bool:
        """Whether it passes sometimes; without assertions, whether the answers differ at all."""
        if self.passed is not None:
            return 0 < self.passed < self.n
        return self.agreement < 1


class Consistency(BaseModel):
    """The repeats of all prompts of one endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    agreement: Estimate
    similarity: Estimate
    majority_share: Estimate
    entropy: Estimate
    pass_at: dict[int, Estimate]
    """For k: the chance that at least one of k answers passes."""
    pass_all: dict[int, Estimate]
    """For k: the chance that all of k answers pass (pass^k)."""
    flaky: list[str]
    """Cases that do not behave the same each time."""
    prompts: list[PromptConsistency]


def pass_at_k(n: int, passed: int, k: int) -> float:
    """The chance that at least one of `k` answers passes, from `passed` of `n`; unbiased
    (Chen et al. 2021). ValueError: k is above n."""
    return 1 - _chance_of_all(n, n - passed, k)


def pass_all_k(n: int, passed: int, k: int) -> float:
    """The chance that all of `k` answers pass (pass^k), from `passed` of `n`; unbiased."""
    return _chance_of_all(n, passed, k)


def _chance_of_all(n: int, good: int, k: int) -> float:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of {n} answers")
    return math.comb(good, k) / math.comb(n, k)


def agreement_of(answers: Sequence[str]) -> float:
    """The chance that two different answers of these are the same text; unbiased for the chance
    that two new ones are. ValueError: fewer than two."""
    n = len(answers)
    if n < 2:
        raise ValueError("agreement takes two answers")
    counts = Counter(answer.strip() for answer in answers).values()
    return sum(count * (count - 1) for count in counts) / (n * (n - 1))


def of_prompt(
    case: str, answers: Sequence[str], passed: Sequence[bool | None]
) -> PromptConsistency:
    """The consistency of at least two answers to one prompt; `passed` of each, or None."""
    texts = [answer.strip() for answer in answers]
    pairs = list(combinations(texts, 2))[:_MOST_PAIRS]
    tally = Counter(texts)
    majority, count = tally.most_common(1)[0]
    decided = [outcome for outcome in passed if outcome is not None]
    return PromptConsistency(
        case=case,
        n=len(texts),
        agreement=agreement_of(texts),
        similarity=_mean([similarity(a, b) for a, b in pairs]),
        chrf=_mean([(sentence_chrf(a, b) + sentence_chrf(b, a)) / 2 for a, b in pairs]),
        majority=majority,
        majority_share=count / len(texts),
        entropy=entropy_of(tally) or 0.0,
        passed=sum(decided) if len(decided) == len(texts) else None,
    )


def consistency(scored: Iterable[ScoredAnswer], label: str) -> Consistency | None:
    """How consistent the endpoint called `label` is; None when no case has two replies.

    Requests without a reply are left out; k goes up to the fewest replies of a judged case.
    """
    groups: dict[str, list[ScoredAnswer]] = {}
    for answer in scored:
        if answer.endpoint == label and answer.state in ("answered", "no_answer"):
            groups.setdefault(answer.case, []).append(answer)
    prompts = [
        of_prompt(case, [a.answer or "" for a in group], [a.passed for a in group])
        for case, group in groups.items()
        if len(group) > 1
    ]
    if not prompts:
        return None
    judged = [(prompt.n, prompt.passed) for prompt in prompts if prompt.passed is not None]
    most = min((n for n, _ in judged), default=0)

    def over(measure: Callable[[int, int, int], float], k: int) -> Estimate:
        return _estimate([measure(n, passed, k) for n, passed in judged])

    steps = [k for k in (1, 2, 3, 4, 5, 8, 10, 16, 32, 64, 100) if k <= most]
    return Consistency(
        endpoint=label,
        agreement=_estimate([prompt.agreement for prompt in prompts]),
        similarity=_estimate([prompt.similarity for prompt in prompts]),
        majority_share=_estimate([prompt.majority_share for prompt in prompts]),
        entropy=_estimate([prompt.entropy for prompt in prompts]),
        pass_at={k: over(pass_at_k, k) for k in steps},
        pass_all={k: over(pass_all_k, k) for k in steps},
        flaky=[prompt.case for prompt in prompts if prompt.flaky],
        prompts=prompts,
    )


def _estimate(values: list[float]) -> Estimate:
    interval = mean_interval(values)
    low, high = interval if interval is not None else (None, None)
    return Estimate(value=_mean(values), low=low, high=high, n=len(values))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


class Drifted(BaseModel):
    """A prompt that was answered in two ways though nothing was left to chance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    alone: str
    together: str
    same: int
    """Characters until they part."""


def differing(alone: dict[str, str], together: dict[str, str]) -> list[Drifted]:
    """The prompts whose greedy answers differ between two runs (one request at a time, and many
    at once); servers that batch requests need not be deterministic."""
    found = []
    for case, first in alone.items():
        second = together.get(case)
        if second is not None and first != second:
            same = next(
                (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
                min(len(first), len(second)),
            )
            found.append(Drifted(case=case, alone=first, together=second, same=same))
    return found
