"""What a load's timings amount to: percentiles, throughput, intervals, knee, objectives."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from palmswift.errors import InputError, Problem
from palmswift.eval.asking.reply import Failure, Reply
from palmswift.eval.asking.timing import quantile
from palmswift.eval.load.bench_load import Run, Shot

LAG_LIMIT = 0.005
CPU_LIMIT = 0.8
"""A run whose client was later (99th percentile, seconds) or busier than this is INVALID."""

KNEE_SHARE = 0.9
"""The knee is the smallest load that reaches so much of the highest throughput."""

_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantiles of Student's t by degrees of freedom from 1; beyond, 2.2 is on the safe
side."""


class Spread(BaseModel):
    """The distribution of a time, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class RunResult(BaseModel):
    """One run of one load."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    load: float
    """Users, or requests a second."""
    valid: bool
    """Whether the client was fit to measure."""
    invalid_because: list[str]
    requests: int
    errors: int
    error_kinds: dict[str, int]
    first_error: str | None
    seconds: float
    requests_per_second: float
    """Answered ones."""
    output_tokens_per_second: float | None
    """By the server's own count, `usage`."""
    tokens_per_event: float | None
    """Of streamed events with text. Where it is above 1, `itl` is the time between events, not
    between tokens; `tpot` counts tokens."""
    planned_rate: float | None
    """Of an open loop: requests a second by the timetable, and as they were sent."""
    sent_rate: float | None
    lag_p99: float
    """Seconds that the client's event loop, or a request of the timetable, was late."""
    lag_max: float
    client_cpu: float
    """Processor time by wall time; 1 is a whole core."""
    ttft: Spread | None
    """To the first text, thinking or not."""
    ttfot: Spread | None
    """To the first text that is not thinking."""
    itl: Spread | None
    """Between two events with text, of all requests together."""
    tpot: Spread | None
    """A token after the first, of each request: (last text - first text) / (tokens - 1)."""
    e2e: Spread | None
    """To the last byte."""


def result_of(load: float, run: Run) -> RunResult:
    """A run in numbers."""
    replies = [shot for shot in run.shots if isinstance(shot.outcome, Reply)]
    failures = [shot.outcome for shot in run.shots if isinstance(shot.outcome, Failure)]
    outcomes = [shot.outcome for shot in replies if isinstance(shot.outcome, Reply)]
    tokens = [outcome.completion_tokens for outcome in outcomes]
    known = [count for count in tokens if count is not None]
    events = sum(len(outcome.arrivals) for outcome in outcomes)
    told = bool(known) and len(known) == len(tokens)
    reasons = _unfit(run)
    return RunResult(
        load=load,
        valid=not reasons,
        invalid_because=reasons,
        requests=len(run.shots),
        errors=len(failures),
        error_kinds=dict(Counter(failure.kind for failure in failures)),
        first_error=failures[0].message if failures else None,
        seconds=run.seconds,
        requests_per_second=_throughput(replies),
        output_tokens_per_second=sum(known) / run.seconds if told and run.seconds else None,
        tokens_per_event=sum(known) / events if told and events else None,
        planned_rate=run.planned_rate,
        sent_rate=run.sent_rate,
        lag_p99=run.health.lag_p99,
        lag_max=run.health.lag_max,
        client_cpu=run.health.cpu,
        ttft=spread([t for o in outcomes if (t := o.timings.first_text) is not None]),
        ttfot=spread([t for o in outcomes if (t := o.timings.first_content) is not None]),
        itl=spread([b - a for o in outcomes for a, b in pairwise(o.arrivals)]),
        tpot=spread([t for o in outcomes if (t := _tpot(o)) is not None]),
        e2e=spread([outcome.seconds for outcome in outcomes]),
    )


def _unfit(run: Run) -> list[str]:
    """Why the client could not measure this run."""
    reasons = []
    if run.health.lag_p99 > LAG_LIMIT:
        reasons.append(f"the client was {run.health.lag_p99 * 1000:.1f} ms late (p99)")
    if run.health.cpu > CPU_LIMIT:
        reasons.append(f"the client used {run.health.cpu:.0%} of a core")
    return reasons


def _throughput(replies: Sequence[Shot]) -> float:
    """Answers a second while the load was on: from the first answer's end to the last sending.

    Before, the server fills; after, it empties. Where hardly anything ends within that time, from
    the first end to the last.
    """
    ended = sorted(shot.ended for shot in replies)
    if len(ended) < 2 or ended[-1] <= ended[0]:
        return 0.0
    last_sent = max(shot.sent for shot in replies)
    within = sum(ended[0] < end <= last_sent for end in ended)
    if within < len(ended) // 2:
        return (len(ended) - 1) / (ended[-1] - ended[0])
    return within / (last_sent - ended[0])


def _tpot(reply: Reply) -> float | None:
    tokens = reply.completion_tokens
    if tokens is None or tokens < 2 or len(reply.arrivals) < 2:
        return None
    return (reply.arrivals[-1] - reply.arrivals[0]) / (tokens - 1)


def spread(values: Sequence[float]) -> Spread | None:
    """The distribution of values; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return Spread(
        n=len(ordered),
        mean=sum(ordered) / len(ordered),
        p50=quantile(ordered, 0.5),
        p90=quantile(ordered, 0.9),
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
        max=ordered[-1],
    )


class Estimate(BaseModel):
    """A number's mean over runs, and the half-width of its 95 % confidence interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    half_width: float | None
    """Student's t over runs; null for a single run."""
    runs: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean over runs; None of no values."""
    if not values:
        return None
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return Estimate(mean=mean, half_width=None, runs=1)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    t = _T95[n - 2] if n - 2 < len(_T95) else 2.2
    return Estimate(mean=mean, half_width=t * deviation / math.sqrt(n), runs=n)


def value_of(run: RunResult, name: str) -> float | None:
    """A number of a run by name: `ttft_p95`, `error_rate`, or a field."""
    if name == "error_rate":
        return run.errors / run.requests if run.requests else None
    stem, _, share = name.rpartition("_")
    if stem in SPREADS:
        found = getattr(run, stem)
        return None if found is None else float(getattr(found, share))
    value = getattr(run, name)
    return None if value is None else float(value)


SPREADS = ("ttft", "ttfot", "itl", "tpot", "e2e")
SHARES = ("mean", "p50", "p90", "p95", "p99", "max")


class Objective(NamedTuple):
    """Something that must hold for users to be content."""

    name: str
    """As of `value_of`."""
    limit: float
    """In seconds, or a share."""
    text: str
    """As it was written."""


_OBJECTIVE = re.compile(r"\s*([a-z0-9_]+)\s*(?:<=|=|:)\s*([0-9.]+)\s*(ms|s|%)?\s*")


def objectives_of(words: Sequence[str]) -> list[Objective]:
    """What `--slo` words such as `ttft_p95<=500ms` say; InputError with all that is wrong."""
    objectives: list[Objective] = []
    problems: list[Problem] = []
    names = [f"{stem}_{share}" for stem in SPREADS for share in SHARES]
    for word in words:
        match = _OBJECTIVE.fullmatch(word)
        if match is None or match[1] not in [*names, "error_rate"] or match[2].count(".") > 1:
            problems.append(Problem("is no objective", word))
            continue
        scale = {"ms": 0.001, "%": 0.01}.get(match[3] or "", 1.0)
        objectives.append(Objective(match[1], float(match[2]) * scale, word.strip()))
    if problems:
        raise InputError(
            "--slo is not understood",
            problems,
            remedy="such as ttft_p95<=500ms, e2e_p99<=10s, error_rate<=1%: "
            f"{'/'.join(SPREADS)} with {'/'.join(SHARES)}",
        )
    return objectives


def meets(runs: Sequence[RunResult], objectives: Sequence[Objective]) -> bool:
    """Whether the runs of one load meet all objectives on average; a failed request is no answer
    within any time."""
    for objective in objectives:
        values = [value_of(run, objective.name) for run in runs]
        known = [value for value in values if value is not None]
        if len(known) < len(values) or not known or sum(known) / len(known) > objective.limit:
            return False
    tolerated = any(objective.name == "error_rate" for objective in objectives)
    return tolerated or not any(run.errors for run in runs)


def knee(throughput: Mapping[float, float]) -> float | None:
    """The smallest load with `KNEE_SHARE` of the highest throughput; None: nothing was served."""
    best = max(throughput.values(), default=0.0)
    if best <= 0:
        return None
    return min(load for load, value in throughput.items() if value >= KNEE_SHARE * best)
