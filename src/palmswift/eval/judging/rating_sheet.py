"""What a rater is shown: cases with their answers side by side, whose they are left out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palmswift.errors import InputError
from palmswift.eval.judging.judge import Candidate, text_hash
from palmswift.eval.judging.ratings import RatedAnswer, Rating, RatingFile


class BlindAnswer(NamedTuple):
    """One text; of endpoints that gave the same text it is shown once."""

    id: str
    """Says nothing of whose it is, but those who have the predictions can work it out."""
    text: str
    of: list[Candidate]


class SheetItem(NamedTuple):
    """A case and its answers, in an order that was drawn."""

    case: str
    repeat: int
    system: str | None
    question: str
    reference: str | None
    answers: list[BlindAnswer]


class Sheet(NamedTuple):
    """All that is to be rated, in an order that was drawn."""

    id: str
    seed: int
    items: list[SheetItem]

    @property
    def answers(self) -> dict[str, BlindAnswer]:
        """The answers by id."""
        return {answer.id: answer for item in self.items for answer in item.answers}


class BlindRating(BaseModel):
    """What the page exports of one answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    ratings: dict[str, Rating]
    comment: str = ""


class BlindFile(BaseModel):
    """What the page exports."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["palmswift blind ratings"]
    version: Literal[1] = 1
    sheet: str
    rater: str = Field(min_length=1)
    seed: int
    saved_at: str
    answers: list[BlindRating]


def make_sheet(candidates: Sequence[Candidate], seed: int, most: int | None = None) -> Sheet:
    """The sheet of these answers; the same answers and seed give the same sheet.

    `most`: so many cases, of which those with several endpoints' answers come first.
    """
    groups: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault((candidate.case, candidate.repeat), []).append(candidate)
    places = sorted(groups)
    random.Random(f"{seed} cases").shuffle(places)
    if most is not None:
        # a stable sort: within a size the drawn order stays
        places = sorted(places, key=lambda place: -len(groups[place]))[:most]
    items = [_item(groups[place], seed) for place in places]
    known = " ".join(sorted(answer.id for item in items for answer in item.answers))
    return Sheet(text_hash(f"{seed} {known}"), seed, items)


def _item(group: Sequence[Candidate], seed: int) -> SheetItem:
    texts: dict[str, list[Candidate]] = {}
    for candidate in group:
        texts.setdefault(candidate.answer, []).append(candidate)
    first = group[0]
    ordered = sorted(texts)
    random.Random(f"{seed} {first.case} {first.repeat}").shuffle(ordered)
    return SheetItem(
        case=first.case,
        repeat=first.repeat,
        system=first.system,
        question=first.question,
        reference=first.reference,
        answers=[BlindAnswer(_blind_id(texts[t][0], seed), t, texts[t]) for t in ordered],
    )


def _blind_id(candidate: Candidate, seed: int) -> str:
    text = f"{seed}\0{candidate.case}\0{candidate.repeat}\0{candidate.answer}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def opened(sheet: Sheet, blind: Iterable[BlindRating], rater: str, saved_at: str) -> RatingFile:
    """The ratings with their endpoints; InputError when some are of other answers."""
    known = sheet.answers
    rated: list[RatedAnswer] = []
    strange = 0
    for rating in blind:
        answer = known.get(rating.id)
        if answer is None:
            strange += 1
            continue
        rated += [
            RatedAnswer(
                endpoint=candidate.endpoint,
                case=candidate.case,
                repeat=candidate.repeat,
                answer_hash=text_hash(candidate.answer),
                ratings=rating.ratings,
                comment=rating.comment,
            )
            for candidate in answer.of
        ]
    if strange:
        raise InputError(
            f"{strange} ratings are of answers that are not in these predictions",
            remedy="give the predictions, suite and seed that the page was made with",
        )
    return RatingFile(rater=rater, seed=sheet.seed, saved_at=saved_at, answers=rated)


def blinded(sheet: Sheet, file: RatingFile) -> dict[str, BlindRating]:
    """A rater's saved ratings by the sheet's ids, to go on with."""
    places = {
        (candidate.endpoint, candidate.case, candidate.repeat, text_hash(candidate.answer)): id
        for id, answer in sheet.answers.items()
        for candidate in answer.of
    }
    found: dict[str, BlindRating] = {}
    for answer in file.answers:
        id = places.get(answer.key)
        if id is not None:
            found[id] = BlindRating(id=id, ratings=answer.ratings, comment=answer.comment)
    return found


def read_blind(data: bytes, name: str) -> BlindFile:
    """What the page exported; InputError when it is something else."""
    try:
        return BlindFile.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{name}: not what the rating page saves: {where}: {first['msg']}"
        ) from error
