"""Whether a tuned model has become a worse model of ordinary text: the forgetting alarm."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palmswift.data.read import read_rows
from palmswift.data.row import Rejection
from palmswift.errors import InputError, Problem
from palmswift.eval.measures.perplexity import Losses, Passage
from palmswift.eval.verdicts.resample import bootstrap
from palmswift.paths import project_root

_SHOWN = 5
ALARM = 0.1
"""Bits per byte more that cannot be passed over: a perplexity that is a third higher, at four bytes
a token."""


class Segment(BaseModel):
    """One passage under both models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    tags: list[str]
    base: float
    """Bits per byte."""
    tuned: float


class Drift(BaseModel):
    """How much more (or less) the tuned model pays for the same texts, in bits per byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: str | None
    """Null: all passages."""
    n: int
    base: float
    tuned: float
    change: float
    """The mean over passages of tuned less base."""
    low: float | None
    """95% interval of the change; passages are drawn again, each with both its numbers."""
    high: float | None
    verdict: Literal["forgetting", "no_forgetting", "undecided"]
    """`forgetting`: all of the interval lies above ALARM; `no_forgetting`: all below."""


class GeneralText(NamedTuple):
    """The bundled passages and their tags."""

    passages: list[Passage]
    tags: dict[str, list[str]]


class _Row(BaseModel):
    """A passage as it stands in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    prompt: str
    text: str = Field(min_length=1)
    tags: list[str] = Field(default_factory=list)


def general_text(path: Path | None = None) -> GeneralText:
    """The passages of a JSONL file of id, prompt, text, tags; null: those that come with us."""
    file = path or project_root() / "eval/texts/general.jsonl"
    rows: dict[str, _Row] = {}
    problems: list[Problem] = []
    for row in read_rows(file):
        if isinstance(row, Rejection):
            problems.append(Problem(row.detail, str(row.place)))
            continue
        try:
            found = _Row.model_validate(row.value)
        except ValidationError as error:
            said = "; ".join(
                f"{e['loc'][0]}: {e['msg']}" if e["loc"] else e["msg"] for e in error.errors()
            )
            problems.append(Problem(said, str(row.place)))
            continue
        if found.id in rows:
            problems.append(Problem(f"the id {found.id!r} was given before", str(row.place)))
        rows[found.id] = found
    if problems or not rows:
        raise InputError(
            f"{file}: {len(problems)} row(s) are no passages",
            problems[:_SHOWN],
            remedy='a row is {"id": ..., "prompt": ..., "text": ..., "tags": [...]}',
        )
    return GeneralText(
        [
            Passage(row.id, [{"role": "user", "content": row.prompt}], row.text)
            for row in rows.values()
        ],
        {row.id: row.tags for row in rows.values()},
    )


def segments(base: Losses, tuned: Losses, tags: dict[str, list[str]]) -> list[Segment]:
    """The passages that both models have a loss of."""
    other = {loss.id: loss for loss in tuned.losses}
    return [
        Segment(
            id=loss.id,
            tags=tags.get(loss.id, []),
            base=loss.bits_per_byte,
            tuned=other[loss.id].bits_per_byte,
        )
        for loss in base.losses
        if loss.id in other
    ]


def drift(found: list[Segment]) -> list[Drift]:
    """The change over all passages, and of each tag's."""
    tags = dict.fromkeys(tag for segment in found for tag in segment.tags)
    groups: list[tuple[str | None, list[Segment]]] = [(None, found)]
    groups += [(tag, [s for s in found if tag in s.tags]) for tag in tags]
    return [_drift(tag, group) for tag, group in groups if group]


def _drift(tag: str | None, group: list[Segment]) -> Drift:
    import numpy as np

    base, tuned = (np.array([getattr(s, name) for s in group]) for name in ("base", "tuned"))
    changes = tuned - base
    interval = bootstrap(len(group), lambda drawn: float(changes[drawn].mean()))
    low, high = interval if interval is not None else (None, None)
    verdict: Literal["forgetting", "no_forgetting", "undecided"] = "undecided"
    if low is not None and low > ALARM:
        verdict = "forgetting"
    elif high is not None and high < ALARM:
        verdict = "no_forgetting"
    return Drift(
        tag=tag,
        n=len(group),
        base=float(base.mean()),
        tuned=float(tuned.mean()),
        change=float(changes.mean()),
        low=low,
        high=high,
        verdict=verdict,
    )
