"""What a judging comes to: scores beside their agreement with people, and whether they may gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.errors import InputError
from palmswift.eval.judging.agreement import TRUSTED, Agreement, kappa_with_interval
from palmswift.eval.judging.judge import Comparison, Judgement, share, summed_up, text_hash
from palmswift.eval.judging.judge_probes import WORDS, Diagnostic
from palmswift.eval.judging.ratings import AnswerKey, Merged
from palmswift.eval.suites.scoring import ScoredAnswer

JUDGE_NAME = "judge.json"


class Coefficient(BaseModel):
    """A coefficient of agreement with its 95% interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    """Null: undefined."""
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, agreement: Agreement) -> Coefficient:
        """As the functions give it."""
        low, high = agreement.interval if agreement.interval is not None else (None, None)
        return cls(value=agreement.value, low=low, high=high, n=agreement.n)

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined on {self.n} answers"
        span = f" [{self.low:.2f}, {self.high:.2f}]" if self.low is not None else ""
        return f"{self.value:.2f}{span} on {self.n} answers"


class RubricReport(BaseModel):
    """How far the judge can be believed by one rubric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rubric: str
    with_people: Coefficient | None
    """Quadratic weighted kappa with the median of people's ratings; null: nobody rated."""
    among_people: Coefficient | None
    """Krippendorff's alpha of the raters; null: fewer than two."""
    can_gate: bool
    why: str


class JudgedScore(BaseModel):
    """What one endpoint was given by one rubric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    rubric: str
    mean: float | None
    n: int
    unparsable: int
    errors: int


class PairReport(BaseModel):
    """How two endpoints compare by one rubric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    rubric: str
    n: int
    first_wins: int
    second_wins: int
    ties: int
    flip_rate: float | None
    """Share of pairs in which the order decided; they count as ties."""
    unusable: int


class JudgeReport(BaseModel):
    """`judge.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    judge: str
    """The model and where it was asked."""
    language: str
    rubrics: list[RubricReport]
    scores: list[JudgedScore]
    pairs: list[PairReport]
    diagnostics: list[Diagnostic]
    warnings: list[str]
    judgements: list[Judgement]
    comparisons: list[Comparison]

    @property
    def agreement(self) -> dict[str, float | None]:
        """Weighted kappa with people by rubric; None where it is not known."""
        return {r.rubric: r.with_people.value if r.with_people else None for r in self.rubrics}


def build(
    judge: str,
    language: str,
    judgements: Sequence[Judgement],
    comparisons: Sequence[Comparison],
    diagnostics: Sequence[Diagnostic],
    people: Merged | None,
    warnings: Sequence[str] = (),
) -> JudgeReport:
    """The report of a judging."""
    names = dict.fromkeys([*(j.rubric for j in judgements), *(c.rubric for c in comparisons)])
    return JudgeReport(
        judge=judge,
        language=language,
        rubrics=[_rubric(name, judgements, diagnostics, people) for name in names],
        scores=[
            JudgedScore(endpoint=endpoint, rubric=rubric, **found._asdict())
            for (endpoint, rubric), found in summed_up(judgements).items()
        ],
        pairs=_pairs(comparisons),
        diagnostics=list(diagnostics),
        warnings=list(warnings),
        judgements=list(judgements),
        comparisons=list(comparisons),
    )


def _rubric(
    name: str,
    judgements: Sequence[Judgement],
    diagnostics: Sequence[Diagnostic],
    people: Merged | None,
) -> RubricReport:
    kappa, alpha = None, None
    if people is not None and name in people.by_rubric:
        medians = people.medians(name)
        rated = {
            AnswerKey(j.endpoint, j.case, j.repeat, j.answer_hash): j.rating
            for j in judgements
            if j.rubric == name and j.rating is not None
        }
        both = [key for key in medians if key in rated]
        judged = [rating for key in both if (rating := rated[key]) is not None]
        kappa = Coefficient.of(kappa_with_interval([medians[key] for key in both], judged))
        if len(people.raters) > 1:
            alpha = Coefficient.of(people.alpha(name))
    faults = [WORDS[d.fault] for d in diagnostics if d.found]
    if kappa is None:
        why = "no person has rated these answers: python eval/rate.py"
    elif kappa.value is None:
        why = "agreement with people is undefined: too few answers, or all rated alike"
    elif kappa.value < TRUSTED:
        why = f"weighted kappa with people is {kappa.value:.2f}, below {TRUSTED}"
    elif faults:
        why = "; ".join(faults)
    else:
        why = f"weighted kappa with people is {kappa.value:.2f}"
    can = kappa is not None and kappa.value is not None and kappa.value >= TRUSTED and not faults
    return RubricReport(rubric=name, with_people=kappa, among_people=alpha, can_gate=can, why=why)


def _pairs(comparisons: Sequence[Comparison]) -> list[PairReport]:
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for comparison in comparisons:
        place = (comparison.first, comparison.second, comparison.rubric)
        groups.setdefault(place, []).append(comparison)
    found = []
    for (first, second, rubric), group in groups.items():
        usable = [c for c in group if c.winner is not None]
        found.append(
            PairReport(
                first=first,
                second=second,
                rubric=rubric,
                n=len(usable),
                first_wins=sum(c.winner == "first" for c in usable),
                second_wins=sum(c.winner == "second" for c in usable),
                ties=sum(c.winner == "tie" for c in usable),
                flip_rate=share(usable, lambda c: c.flipped),
                unusable=len(group) - len(usable),
            )
        )
    return found


def read_judge_report(path: Path) -> JudgeReport:
    """The report in a `judge.json`."""
    try:
        return JudgeReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path}: not a judge's report of this version: {error}") from error


def with_judgements(
    scored: Sequence[ScoredAnswer], judgements: Sequence[Judgement]
) -> list[ScoredAnswer]:
    """The answers with `judge.RUBRIC` among their scores, where that very answer was judged."""
    given: Mapping[AnswerKey, dict[str, float]] = _by_answer(judgements)
    found = []
    for answer in scored:
        key = AnswerKey(answer.endpoint, answer.case, answer.repeat, text_hash(answer.answer or ""))
        more = given.get(key) if answer.state == "answered" else None
        scores = {**answer.scores, **more} if more else answer.scores
        found.append(answer.model_copy(update={"scores": scores}))
    return found


def _by_answer(judgements: Sequence[Judgement]) -> dict[AnswerKey, dict[str, float]]:
    given: dict[AnswerKey, dict[str, float]] = {}
    for j in judgements:
        if j.rating is not None:
            key = AnswerKey(j.endpoint, j.case, j.repeat, j.answer_hash)
            given.setdefault(key, {})[f"judge.{j.rubric}"] = float(j.rating)
    return given
