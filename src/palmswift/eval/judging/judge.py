"""A language model as judge: single ratings, and comparisons in both orders."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from palmswift.eval.asking.asking import Asker
from palmswift.eval.asking.engine import Question, Target
from palmswift.eval.asking.journal import Prediction, read_journal
from palmswift.eval.asking.think import split_think
from palmswift.eval.judging.agreement import RATINGS
from palmswift.eval.judging.rubrics import Language, Rubric, comparing_prompt, rating_prompt
from palmswift.eval.suites.extract import json_in

Winner = Literal["first", "second", "tie"]


class Candidate(NamedTuple):
    """An answer that is judged."""

    endpoint: str
    case: str
    repeat: int
    question: str
    answer: str
    reference: str | None = None
    system: str | None = None

    @property
    def id(self) -> str:
        """What its judgements are journalled under, with a trace of the answer itself."""
        return f"{self.endpoint}/{self.case}/{self.repeat}/{text_hash(self.answer)}"

    def material(self, **answers: str) -> dict[str, Any]:
        """What the judge is shown: the case and the answers."""
        shown: dict[str, Any] = {"system": self.system, "question": self.question}
        shown |= {"reference": self.reference, **(answers or {"answer": self.answer})}
        return {name: value for name, value in shown.items() if value is not None}


class Judgement(BaseModel):
    """What a judge made of one answer by one rubric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    case: str
    repeat: int
    rubric: str
    state: Literal["rated", "unparsable", "error"]
    """`unparsable`: the judge replied, but with no rating; counted, never guessed at."""
    rating: int | None = None
    reason: str | None = None
    """The judge's, or why there is no rating."""
    answer_hash: str
    """Of the answer that was judged; another answer has no judgement."""


class Comparison(BaseModel):
    """What a judge made of two answers to the same case, shown in both orders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    repeat: int
    rubric: str
    first: str
    second: str
    """The endpoints."""
    forwards: Winner | None
    """Who won with `first` shown first; null: no usable judgement."""
    backwards: Winner | None
    """Who won with `second` shown first."""

    @property
    def winner(self) -> Winner | None:
        """Who won in both orders; a judge that changes its mind has found no difference."""
        if self.forwards is None or self.backwards is None:
            return None
        return self.forwards if self.forwards == self.backwards else "tie"

    @property
    def flipped(self) -> bool:
        """Whether the order decided."""
        return {self.forwards, self.backwards} == {"first", "second"}


class Judge:
    """Asks the judging model; replies are kept in the asker's journal and not asked for again."""

    def __init__(self, asker: Asker, target: Target, language: Language) -> None:
        self._asker = asker
        self.target = target
        self._language = language

    def rate(self, candidates: Sequence[Candidate], rubrics: Sequence[Rubric]) -> list[Judgement]:
        """A judgement of each answer by each rubric."""
        work = [(candidate, rubric) for candidate in candidates for rubric in rubrics]
        questions = [
            self._question(
                f"{candidate.id}/{rubric.name}",
                rating_prompt(rubric, self._language, candidate.material()),
            )
            for candidate, rubric in work
        ]
        rows = self._ask(questions)
        return [
            _judgement(candidate, rubric, rows.get(question.case))
            for (candidate, rubric), question in zip(work, questions, strict=True)
        ]

    def compare(
        self, pairs: Sequence[tuple[Candidate, Candidate]], rubrics: Sequence[Rubric]
    ) -> list[Comparison]:
        """A comparison of each pair by each rubric, each shown in both orders."""
        work = [(pair, rubric) for pair in pairs for rubric in rubrics]
        questions: list[Question] = []
        for (first, second), rubric in work:
            for turn, (a, b) in (("ab", (first, second)), ("ba", (second, first))):
                material = first.material(answer_A=a.answer, answer_B=b.answer)
                prompt = comparing_prompt(rubric, self._language, material)
                questions.append(
                    self._question(f"{first.id}|{second.id}/{rubric.name}/{turn}", prompt)
                )
        rows = self._ask(questions)
        outcomes = [_winner(rows.get(question.case)) for question in questions]
        return [
            Comparison(
                case=first.case,
                repeat=first.repeat,
                rubric=rubric.name,
                first=first.endpoint,
                second=second.endpoint,
                forwards=_who(outcomes[2 * n], ("first", "second")),
                backwards=_who(outcomes[2 * n + 1], ("second", "first")),
            )
            for n, ((first, second), rubric) in enumerate(work)
        ]

    def _question(self, case: str, prompt: str) -> Question:
        return Question(case, 0, [{"role": "user", "content": prompt}])

    def _ask(self, questions: Sequence[Question]) -> Mapping[str, Prediction]:
        unique = list({question.case: question for question in questions}.values())
        self._asker.ask(self.target, unique)
        wanted = self._asker.keys(self.target, unique)
        return {row.case: row for row in read_journal(self._asker.path) if row.key in wanted}


def text_hash(text: str) -> str:
    """12 hex digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _judgement(candidate: Candidate, rubric: Rubric, row: Prediction | None) -> Judgement:
    place: dict[str, Any] = {
        "endpoint": candidate.endpoint,
        "case": candidate.case,
        "repeat": candidate.repeat,
        "rubric": rubric.name,
        "answer_hash": text_hash(candidate.answer),
    }
    if row is None or row.error is not None:
        why = row.error.message if row is not None and row.error is not None else "not asked"
        return Judgement(**place, state="error", reason=why)
    try:
        rating, reason = read_rating(_text(row))
    except ValueError as error:
        return Judgement(**place, state="unparsable", reason=str(error))
    return Judgement(**place, state="rated", rating=rating, reason=reason)


def _text(row: Prediction) -> str:
    answer = split_think(row.content, row.reasoning).answer
    if answer is None:
        raise ValueError("the judge's thinking did not end: give it more --max-tokens")
    return answer


def read_rating(text: str) -> tuple[int, str | None]:
    """The rating and its reason in a judge's reply; ValueError when there is none to rely on."""
    document = _document(text)
    rating = document.get("rating")
    if isinstance(rating, str) and rating.strip().isascii() and rating.strip().isdigit():
        rating = int(rating)
    if isinstance(rating, float) and rating.is_integer():
        rating = int(rating)
    if isinstance(rating, bool) or not isinstance(rating, int) or rating not in RATINGS:
        raise ValueError(f"`rating` is {rating!r:.40}, not an integer from 1 to 5")
    return rating, _reason(document)


def _document(text: str) -> dict[str, Any]:
    document = json_in(text)
    if not isinstance(document, dict):
        raise ValueError("the judge's JSON is no object")
    return document


def _reason(document: Mapping[str, Any]) -> str | None:
    reason = document.get("reason")
    return reason if isinstance(reason, str) else None


def _winner(row: Prediction | None) -> Literal["A", "B", "tie"] | None:
    """Whom the judge named; None: nobody in a form that can be relied on."""
    if row is None or row.error is not None:
        return None
    try:
        named = str(_document(_text(row)).get("winner")).strip()
    except ValueError:
        return None
    folded = {"A": "A", "B": "B", "TIE": "tie", "平局": "tie", "平手": "tie"}
    found = folded.get(named.upper())
    return found if found in ("A", "B", "tie") else None  # type: ignore[return-value]


def _who(named: str | None, shown: tuple[Winner, Winner]) -> Winner | None:
    if named is None:
        return None
    return "tie" if named == "tie" else shown["AB".index(named)]


class RubricScores(NamedTuple):
    """What one endpoint was rated by one rubric."""

    mean: float | None
    n: int
    unparsable: int
    errors: int


def summed_up(judgements: Iterable[Judgement]) -> dict[tuple[str, str], RubricScores]:
    """The mean rating by endpoint and rubric; judgements without a rating are in no mean."""
    groups: dict[tuple[str, str], list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault((judgement.endpoint, judgement.rubric), []).append(judgement)
    found = {}
    for place, group in groups.items():
        ratings = [j.rating for j in group if j.rating is not None]
        found[place] = RubricScores(
            math.fsum(ratings) / len(ratings) if ratings else None,
            len(ratings),
            sum(j.state == "unparsable" for j in group),
            sum(j.state == "error" for j in group),
        )
    return found


def share(values: Iterable[Any], test: Callable[[Any], bool]) -> float | None:
    """Which part of the values passes; None of nothing."""
    listed = list(values)
    return sum(map(test, listed)) / len(listed) if listed else None
