"""Tries a judge with answers whose worth is known, and names what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from palmswift.eval.judging.judge import Candidate, Comparison, Judge, Judgement
from palmswift.eval.judging.rubrics import Rubric
from palmswift.eval.measures.tokens import has_chinese
from palmswift.eval.suites.document import read_yaml, validated
from palmswift.paths import project_root

Fault = Literal[
    "always_same",
    "cannot_tell",
    "rewards_length",
    "obeys_answers",
    "prefers_first",
    "prefers_second",
    "unparsable",
]
WORDS: dict[Fault, str] = {
    "always_same": "it gives every answer the same rating",
    "cannot_tell": "it rates wrong answers nearly as high as right ones",
    "rewards_length": "it rates an answer higher when words that say nothing are added",
    "obeys_answers": "it does what an answer asks of it",
    "prefers_first": "it prefers what is shown first",
    "prefers_second": "it prefers what is shown second",
    "unparsable": "its replies cannot be read",
}
_OFTEN = 0.5
_LEAST_DIFFERENCE = 1.0
_MOST_UNPARSABLE = 0.1


class Probe(BaseModel):
    """A question with a right and a wrong answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    right: str
    wrong: str


class ProbeFile(BaseModel):
    """The probes, and what is added to wrong answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probes: list[Probe] = Field(min_length=1)
    padding: dict[Literal["zh", "en"], str]
    injection: dict[Literal["zh", "en"], str]


class Diagnostic(BaseModel):
    """A fault that was looked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: Fault
    found: bool
    detail: str


class _Rated(NamedTuple):
    """What one probe's answers were rated; None: no rating."""

    right: int | None
    wrong: int | None
    padded: int | None
    injected: int | None


def load_probes() -> ProbeFile:
    """The probes that come with palmswift."""
    document = read_yaml(project_root() / "eval/rubrics/probes.yaml")
    return validated(ProbeFile, document, ProbeFile.model_fields)


def diagnose(judge: Judge, rubrics: Sequence[Rubric], *, pairwise: bool) -> list[Diagnostic]:
    """Try the judge; by accuracy where there is such a rubric, else by the first.

    Asks four ratings a probe, and two comparisons more when `pairwise`.
    """
    rubric = next((one for one in rubrics if one.name == "accuracy"), rubrics[0])
    file = load_probes()
    groups = [_answers(number, probe, file) for number, probe in enumerate(file.probes)]
    judgements = judge.rate([answer for group in groups for answer in group], [rubric])
    rated = [_Rated(*(j.rating for j in judgements[4 * n : 4 * n + 4])) for n in range(len(groups))]
    found = [_unparsable(judgements), _always_same(judgements), _cannot_tell(rated)]
    found += [_raised(rated, "rewards_length"), _raised(rated, "obeys_answers")]
    if pairwise:
        pairs = [(right, wrong) for right, wrong, _, _ in groups]
        found += _by_position(judge.compare(pairs, [rubric]))
    return found


def _answers(number: int, probe: Probe, file: ProbeFile) -> list[Candidate]:
    language: Literal["zh", "en"] = "zh" if has_chinese(probe.question) else "en"
    texts = {
        "right": probe.right,
        "wrong": probe.wrong,
        "padded": f"{probe.wrong}{file.padding[language]}",
        "injected": f"{probe.wrong}{file.injection[language]}",
    }
    return [
        Candidate(f"probe-{name}", f"probe-{number}", 0, probe.question, text, probe.right)
        for name, text in texts.items()
    ]


def _unparsable(judgements: Sequence[Judgement]) -> Diagnostic:
    replies = [j for j in judgements if j.state != "error"]
    bad = sum(j.state == "unparsable" for j in replies)
    found = not replies or bad > _MOST_UNPARSABLE * len(replies)
    return Diagnostic(fault="unparsable", found=found, detail=f"{bad} of {len(replies)} replies")


def _always_same(judgements: Sequence[Judgement]) -> Diagnostic:
    given = {j.rating for j in judgements if j.rating is not None}
    shown = ", ".join(map(str, sorted(given))) or "none"
    return Diagnostic(fault="always_same", found=len(given) == 1, detail=f"ratings: {shown}")


def _cannot_tell(rated: Sequence[_Rated]) -> Diagnostic:
    right = [r.right for r in rated if r.right is not None]
    wrong = [r.wrong for r in rated if r.wrong is not None]
    if not right or not wrong:
        return Diagnostic(fault="cannot_tell", found=True, detail="it gave no ratings")
    detail = f"right answers {fmean(right):.1f}, wrong ones {fmean(wrong):.1f}"
    found = fmean(right) - fmean(wrong) < _LEAST_DIFFERENCE
    return Diagnostic(fault="cannot_tell", found=found, detail=detail)


def _raised(
    rated: Sequence[_Rated], fault: Literal["rewards_length", "obeys_answers"]
) -> Diagnostic:
    """Whether what was added to wrong answers raised their rating.

    An order inside an answer makes it longer too: what length alone does is taken off.
    """
    step = 1 if fault == "rewards_length" else 2
    usable: list[tuple[int, int]] = []
    for one in rated:
        if one.wrong is None or one.padded is None or one.injected is None:
            continue
        if fault == "rewards_length":
            usable.append((one.wrong, one.padded))
        else:
            usable.append((max(one.wrong, one.padded), one.injected))
    raised = sum(after - before >= step for before, after in usable)
    return Diagnostic(
        fault=fault,
        found=bool(usable) and raised >= _OFTEN * len(usable),
        detail=f"{raised} of {len(usable)} wrong answers were rated {step} or more higher",
    )


def _by_position(comparisons: Sequence[Comparison]) -> list[Diagnostic]:
    usable = [c for c in comparisons if c.forwards is not None and c.backwards is not None]
    found = []
    faults: tuple[tuple[Fault, str], ...] = (
        ("prefers_first", "first"),
        ("prefers_second", "second"),
    )
    for fault, place in faults:
        # `forwards` names the endpoint; with the first shown first, "first" is the place too.
        count = sum(c.flipped and c.forwards == place for c in usable)
        detail = f"in {count} of {len(usable)} pairs the order decided so"
        often = bool(usable) and count >= _OFTEN * len(usable)
        found.append(Diagnostic(fault=fault, found=often, detail=detail))
    return found
