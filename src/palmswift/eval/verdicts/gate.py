"""Gates: bounds on what is measured, also against the base model, and whether they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from palmswift.eval.measures.metrics import LOWER_IS_BETTER, MetricName, metric_of
from palmswift.eval.suites.summary import Summary
from palmswift.eval.verdicts.comparison import Comparison, turned

LEAST_AGREEMENT = 0.4
"""Weighted kappa with people below which a judge may not decide ("fair" in Landis and Koch)."""


class Trust(NamedTuple):
    """Whether a judge may decide by one rubric."""

    agreement: float | None
    """Weighted kappa with people; None: not known."""
    doubt: str = ""
    """Why it may not, whatever a gate allows; empty: it may."""


class Gate(BaseModel):
    """A bound on one metric, of one tag's cases or of all, at one endpoint or at each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: MetricName
    tag: str | None = None
    """Null: all cases."""
    endpoint: str | None = None
    """The label of the endpoint that is held to it; null: every endpoint (but, of a bound against
    another, that one)."""
    min: float | None = None
    max: float | None = None
    max_drop: float | None = Field(default=None, ge=0)
    """How much worse than the base the value may be, in its own unit."""
    non_inferior_to: str | None = None
    """The label of the endpoint that this one is to be shown not to be worse than by more than
    `margin`: the whole 95 % interval of the paired difference lies above it."""
    margin: float | None = Field(default=None, ge=0)
    """Of `non_inferior_to`, in the metric's unit; null: the suite's margin, else 5 % of the
    scale."""
    min_agreement: float = LEAST_AGREEMENT
    """Of a judge's metric: the least weighted kappa with people's ratings that it may decide
    with."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> Gate:
        bounds = (self.min, self.max, self.max_drop, self.non_inferior_to)
        if all(bound is None for bound in bounds):
            raise ValueError("a gate needs `min`, `max`, `max_drop` or `non_inferior_to`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` {self.min:g} is above `max` {self.max:g}")
        if self.margin is not None and self.non_inferior_to is None:
            raise ValueError("`margin` belongs to `non_inferior_to`")
        if self.non_inferior_to is not None:
            if self.metric != "pass_rate" and not metric_of(self.metric).per_answer:
                raise ValueError(
                    f"`non_inferior_to` needs a metric of single answers, which "
                    f"{self.metric} is not"
                )
            if self.endpoint is not None and self.endpoint == self.non_inferior_to:
                raise ValueError("an endpoint cannot be held against itself")
        return self


class GateResult(BaseModel):
    """A gate held against one endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: Gate
    suite: str | None = None
    """The suite that the gate stands in; null in reports of version 1."""
    endpoint: str
    observed: float | None
    """The measured value; null when nothing was there to measure."""
    n: int
    """How many answers the value is of."""
    state: Literal["passed", "failed", "not_checked"]
    """`not_checked`: an endpoint that the gate names was not tested. A gate that cannot be measured
    at an endpoint that was tested has failed."""
    reasons: list[str] = []
    """Why it failed or was not checked."""


Compare = Callable[[Gate, str, str], Comparison]
"""A gate's metric compared: of the label given first, against that given second."""


def hold(
    gates: Sequence[Gate],
    summaries: Sequence[Summary],
    *,
    suite: str | None = None,
    base: str | None = None,
    compare: Compare | None = None,
    judges: Mapping[str, Trust] | None = None,
) -> list[GateResult]:
    """Each gate against each endpoint it is for, in the order of the gates.

    `summaries` are the suite's own. `base` is the label that `max_drop` compares with; `compare`
    is asked for `non_inferior_to`. `judges`: how far a judge can be trusted by each rubric.
    """
    labels = list(dict.fromkeys(summary.endpoint for summary in summaries))
    results = []
    for gate in gates:
        against = gate.non_inferior_to if gate.non_inferior_to is not None else base
        relative = gate.max_drop is not None or gate.non_inferior_to is not None
        wanted = [label for label in labels if not relative or label != against]
        for label in wanted if gate.endpoint is None else [gate.endpoint]:
            results.append(_hold_one(gate, label, summaries, suite, against, compare, judges))
    return results


def _hold_one(
    gate: Gate,
    label: str,
    summaries: Sequence[Summary],
    suite: str | None,
    against: str | None,
    compare: Compare | None,
    judges: Mapping[str, Trust] | None,
) -> GateResult:
    own = _summary(summaries, label, gate.tag)
    measured = own.metrics.get(gate.metric) if own is not None else None
    value = measured.value if measured is not None else None
    n = measured.n if measured is not None else 0
    place: dict[str, Any] = {"gate": gate, "suite": suite, "endpoint": label, "observed": value}
    place["n"] = n
    labels = {summary.endpoint for summary in summaries}
    relative = gate.max_drop is not None or gate.non_inferior_to is not None
    lacking = [name for name in (label, against if relative else label) if name not in labels]
    if lacking:
        name = lacking[0] or "base"
        return GateResult(
            **place, state="not_checked", reasons=[f"no endpoint called {name} was tested"]
        )
    reasons = _absolute(gate, value)
    if own is not None and own.undecided and gate.metric == "pass_rate":
        reasons.append(f"{own.undecided} replies could not be judged")
    if gate.metric.startswith("judge."):
        reasons += _trusted(gate, judges or {})
    if gate.max_drop is not None and against is not None and value is not None:
        reasons += _dropped(gate, value, _value(_summary(summaries, against, gate.tag), gate))
    if gate.non_inferior_to is not None and compare is not None and value is not None:
        reasons += _inferior(compare(gate, label, gate.non_inferior_to))
    return GateResult(**place, state="failed" if reasons else "passed", reasons=reasons)


def _summary(summaries: Sequence[Summary], label: str, tag: str | None) -> Summary | None:
    found = (s for s in summaries if s.endpoint == label and s.tag == tag)
    return next(found, None)


def _value(summary: Summary | None, gate: Gate) -> float | None:
    measured = summary.metrics.get(gate.metric) if summary is not None else None
    return measured.value if measured is not None else None


def _absolute(gate: Gate, value: float | None) -> list[str]:
    if value is None:
        return ["nothing to measure"]
    reasons = []
    if gate.min is not None and not value >= gate.min:
        reasons.append(f"{value:g} is below {gate.min:g}")
    if gate.max is not None and not value <= gate.max:
        reasons.append(f"{value:g} is above {gate.max:g}")
    return reasons


def _trusted(gate: Gate, judges: Mapping[str, Trust]) -> list[str]:
    trust = judges.get(gate.metric.removeprefix("judge."))
    if trust is None or (trust.agreement is None and not trust.doubt):
        return ["the judge has not been compared with people: rate some answers (eval/rate.py)"]
    if trust.agreement is not None and trust.agreement < gate.min_agreement:
        return [
            f"the judge agrees with people by {trust.agreement:.2f}, below {gate.min_agreement:g}"
        ]
    return [f"the judge may not decide: {trust.doubt}"] if trust.doubt else []


def _dropped(gate: Gate, value: float, before: float | None) -> list[str]:
    if before is None:
        return ["nothing to measure at the base"]
    drop = value - before if gate.metric in LOWER_IS_BETTER else before - value
    allowed = gate.max_drop or 0.0
    # Bounds are written in decimals: 0.9 - 0.85 is no larger a drop than 0.05.
    return [f"worse by {drop:g}, above {allowed:g}"] if drop > allowed + 1e-9 else []


def _inferior(found: Comparison) -> list[str]:
    if found.difference is None:
        return ["no case has an answer of both models"]
    _, low, _ = turned(found)
    if low > -found.margin:
        return []
    return [
        f"may be worse by {max(0.0, -low):.3g}, which {found.margin:g} does not allow "
        f"(95 % interval of {found.cases} cases)"
    ]
