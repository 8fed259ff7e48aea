"""Gates: the least (or most) that a measured value must (may) be, and whether it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from palmswift.eval.metrics import MetricName
from palmswift.eval.summary import Summary


class Gate(BaseModel):
    """A bound on one metric, of one tag's cases or of all, at one endpoint or at each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: MetricName
    tag: str | None = None
    """Null: all cases."""
    endpoint: str | None = None
    """The label of the endpoint that is held to it; null: every endpoint."""
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Gate:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs `min` or `max`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` {self.min:g} is above `max` {self.max:g}")
        return self


class GateResult(BaseModel):
    """A gate held against one endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: Gate
    endpoint: str
    observed: float | None
    """The measured value; null when nothing was there to measure."""
    n: int
    """How many answers the value is of."""
    state: Literal["passed", "failed", "not_checked"]
    """`not_checked`: no endpoint with the gate's label was tested. A gate that cannot be measured
    at an endpoint that was tested has failed."""


def hold(gates: Sequence[Gate], summaries: Sequence[Summary]) -> list[GateResult]:
    """Each gate against each endpoint it is for, in the order of the gates."""
    labels = list(dict.fromkeys(summary.endpoint for summary in summaries))
    results = []
    for gate in gates:
        wanted = labels if gate.endpoint is None else [gate.endpoint]
        for label in wanted:
            found = [s for s in summaries if s.endpoint == label and s.tag == gate.tag]
            if label not in labels:
                results.append(
                    GateResult(gate=gate, endpoint=label, observed=None, n=0, state="not_checked")
                )
                continue
            measured = found[0].metrics.get(gate.metric) if found else None
            value = measured.value if measured is not None else None
            low = gate.min is None or (value is not None and value >= gate.min)
            high = gate.max is None or (value is not None and value <= gate.max)
            results.append(
                GateResult(
                    gate=gate,
                    endpoint=label,
                    observed=value,
                    n=measured.n if measured is not None else 0,
                    state="passed" if low and high else "failed",
                )
            )
    return results
