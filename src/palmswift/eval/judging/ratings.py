"""Ratings by people: the file that a rater leaves, and several raters' files together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palmswift.errors import InputError
from palmswift.eval.judging.agreement import Agreement, alpha_with_interval

Rating = Annotated[int, Field(ge=1, le=5)]


class RatedAnswer(BaseModel):
    """What a person gave one answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    case: str
    repeat: int = 0
    answer_hash: str
    """Of the answer that was rated."""
    ratings: dict[str, Rating]
    """By rubric; what was passed over is absent."""
    comment: str = ""

    @property
    def key(self) -> AnswerKey:
        """The answer."""
        return AnswerKey(self.endpoint, self.case, self.repeat, self.answer_hash)


class RatingFile(BaseModel):
    """`ratings.json` of one rater."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    rater: str = Field(min_length=1)
    seed: int
    saved_at: str
    answers: list[RatedAnswer]


class AnswerKey(NamedTuple):
    """An answer of an endpoint, and the text of it."""

    endpoint: str
    case: str
    repeat: int
    answer_hash: str


def read_ratings(path: Path) -> RatingFile:
    """One rater's file; InputError when it is none."""
    try:
        return RatingFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}: not a file of ratings: {where}: {first['msg']}",
            remedy="it is what eval/rate.py or its page saves",
        ) from error


class Merged(NamedTuple):
    """Several raters' ratings by rubric and answer."""

    raters: list[str]
    by_rubric: dict[str, dict[AnswerKey, dict[str, int]]]
    """Rubric -> answer -> rater -> rating."""

    def medians(self, rubric: str) -> dict[AnswerKey, int]:
        """People's rating of each answer: the median, of two middle ones the lower."""
        given = self.by_rubric.get(rubric, {})
        return {key: int(statistics.median_low(of.values())) for key, of in given.items()}

    def alpha(self, rubric: str) -> Agreement:
        """How far the raters agree with each other."""
        return alpha_with_interval(list(self.by_rubric.get(rubric, {}).values()))


def merge(files: Iterable[RatingFile]) -> Merged:
    """The files together; of a rater's several files the later ratings count."""
    ordered = sorted(files, key=lambda file: file.saved_at)
    by_rubric: dict[str, dict[AnswerKey, dict[str, int]]] = {}
    for file in ordered:
        for answer in file.answers:
            for rubric, rating in answer.ratings.items():
                by_rubric.setdefault(rubric, {}).setdefault(answer.key, {})[file.rater] = rating
    return Merged(list(dict.fromkeys(file.rater for file in ordered)), by_rubric)


def read_all(paths: Sequence[Path]) -> Merged:
    """All raters' files."""
    return merge(read_ratings(path) for path in paths)
