"""The gate itself: rows pass shape, duplicates, ms-swift's template and the split in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from palmswift.data.checks import to_conversation
from palmswift.data.read import DataFile
from palmswift.data.row import Conversation, Place, Rejection, RowError
from palmswift.data.split import Split, hold_out
from palmswift.data.template import Judgement, TemplateSpec, judge
from palmswift.errors import GateError
from palmswift.recipes.recipe import DataSettings

Use = Literal["train", "val"]
"""What a file was given for."""

Progress = Callable[[str], None]
"""Told in a sentence what begins to take time."""


@dataclass
class Sieve:
    """One file, and what has become of its rows so far."""

    file: DataFile
    use: Use
    kept: list[Conversation]
    rejected: list[Rejection]

    def reject(self, found: Mapping[Place, Rejection]) -> None:
        """Move the kept rows that have a rejection now; rejected rows stay in their order."""
        mine = [found[row.place] for row in self.kept if row.place in found]
        self.kept = [row for row in self.kept if row.place not in found]
        self.rejected = sorted([*self.rejected, *mine], key=lambda row: row.place.number)


class Passage(NamedTuple):
    """What came through: the sieves, the template's word, and the rows of either side."""

    sieves: list[Sieve]
    judgement: Judgement | None
    """None when no row came as far as the template."""
    split: Split
    failure: GateError | None
    """Why the kept rows are not enough to train or to validate with."""


def pass_rows(
    files: Sequence[tuple[DataFile, Use]],
    settings: DataSettings,
    template: TemplateSpec,
    *,
    log: Path,
    progress: Progress,
) -> Passage:
    """Every row of the files, kept or rejected. ChildError: the template could not be asked."""
    sieves = [_shape(file, use, settings) for file, use in files]
    _drop_duplicates(sieves)
    candidates = [row for sieve in sieves for row in sieve.kept]
    judgement = None
    if candidates:
        progress(f"asking ms-swift's template about {len(candidates)} rows")
        judgement = judge(candidates, template, log=log)
        found = {}
        for row, verdict in zip(candidates, judgement.verdicts, strict=True):
            if reason := verdict.reason(judgement.facts):
                found[row.place] = row.reject(*reason)
        for sieve in sieves:
            sieve.reject(found)
    split, failure = _split(sieves, settings)
    return Passage(sieves, judgement, split, failure)


def _shape(file: DataFile, use: Use, settings: DataSettings) -> Sieve:
    sieve = Sieve(file, use, [], [])
    for row in file.rows:
        if isinstance(row, Rejection):
            sieve.rejected.append(row)
            continue
        try:
            sieve.kept.append(to_conversation(row, settings))
        except RowError as error:
            sieve.rejected.append(Rejection(row.place, error.code, error.detail, row.fields))
    return sieve


def _drop_duplicates(sieves: Sequence[Sieve]) -> None:
    first: dict[str, tuple[Place, Use]] = {}
    for sieve in sieves:
        found = {}
        for row in sieve.kept:
            place, use = first.setdefault(row.digest, (row.place, sieve.use))
            if place != row.place:
                code = "duplicate" if use == sieve.use else "also_in_train"
                found[row.place] = row.reject(code, f"the same as {place}")
        sieve.reject(found)


def _split(sieves: Sequence[Sieve], settings: DataSettings) -> tuple[Split, GateError | None]:
    rows: dict[Use, list[Conversation]] = {"train": [], "val": []}
    for sieve in sieves:
        rows[sieve.use] += sieve.kept
    given = Split(rows["train"], rows["val"])
    for use, kept in rows.items():
        count = sum(len(sieve.file.rows) for sieve in sieves if sieve.use == use)
        if count and not kept:
            kind = "training" if use == "train" else "validation"
            return given, GateError(f"none of the {count} {kind} rows can be used")
    if given.val:
        return given, None
    try:
        return hold_out(given.train, settings.val_ratio, settings.seed), None
    except GateError as error:
        return given, error
