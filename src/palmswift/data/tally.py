"""Counts what becomes of each row while the gate streams, and makes the report of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from palmswift.data.lengths import Lengths, token_report
from palmswift.data.policy import CHANGES, CHECKS, Policy
from palmswift.data.report import (
    CodeReport,
    ConflictReport,
    DataReport,
    Example,
    FileReport,
    NearReport,
    UnreadColumns,
    Use,
)
from palmswift.data.row import Kind, Place, Rejection, json_line, printable
from palmswift.data.sample import SampleRow
from palmswift.data.template import TemplateFacts
from palmswift.recipes.recipe import DataSettings

EXAMPLES = 5
"""Rows that stand in the report for each code."""

PRIVATE = frozenset({"phone_number", "id_number", "bank_card", "email", "secret"})
"""Codes whose rows are told by place alone: the report is passed on, what they hold is not."""

_COLUMN_SETS = 20
_SAMPLED_ROWS = 200
_EXCERPT = 240


class OpenFile(Protocol):
    """What the report tells of a file, whichever reader opened it."""

    @property
    def source(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def notes(self) -> Sequence[str]: ...


class ReportBuilder:
    """Told of every row once: `rejected`, or `kept` and then `wrote` for each row written of it.

    It keeps counts and a few examples, so that its size does not grow with the number of rows.
    """

    def __init__(
        self, files: Sequence[tuple[OpenFile, Use]], settings: DataSettings, kind: Kind
    ) -> None:
        self._files = [_FileTally(file, use) for file, use in files]
        self._by_source = {tally.file.source: tally for tally in self._files}
        if len(self._by_source) != len(self._files):
            raise ValueError("two files are called the same")
        self._settings = settings
        self._kind = kind
        self._policy = Policy(settings.rules)
        self._reasons: dict[str, _CodeTally] = {}
        self._findings: dict[str, _CodeTally] = {}
        self._changes: Counter[str] = Counter()
        self._columns: dict[tuple[str, ...], _ColumnTally] = {}
        self._written: dict[Use, int] = {"train": 0, "val": 0}
        self._tokens: Lengths = Counter()
        self._supervised: Lengths = Counter()
        self._over_length: Lengths = Counter()

    def rejected(self, rejection: Rejection, *, tokens: int = 0) -> None:
        """Count a row that is left out; `tokens` of one that is over_length, where known."""
        code = rejection.code
        self._by_source[rejection.place.source].reasons[code] += 1
        tally = self._reasons.setdefault(code, _CodeTally())
        tally.count += 1
        if len(tally.examples) < EXAMPLES:
            text = "" if code in PRIVATE else _excerpt(rejection.row)
            tally.examples.append(
                Example(place=str(rejection.place), detail=rejection.detail, row=text)
            )
        if code == "over_length" and tokens:
            self._over_length[tokens] += 1
        if code in ("unknown_shape", "ambiguous_columns") and isinstance(rejection.row, dict):
            self._see_columns(rejection.row)

    def kept(
        self,
        place: Place,
        shape: str,
        *,
        changes: Collection[str] = (),
        findings: Collection[str] = (),
        line: str | bytes = "",
    ) -> None:
        """Count a source row that is used; `line` is its JSON, looked at only for an example."""
        file = self._by_source[place.source]
        file.kept += 1
        file.shapes[shape] += 1
        if changes:
            self._changes.update(changes)
        for code in findings:
            tally = self._findings.setdefault(code, _CodeTally())
            tally.count += 1
            if len(tally.examples) < EXAMPLES:
                text = "" if PRIVATE & set(findings) else _cut(line)
                tally.examples.append(Example(place=str(place), detail="", row=text))

    def wrote(self, use: Use, tokens: int, supervised: int) -> None:
        """Count a row of train.jsonl or val.jsonl, with the template's counts."""
        self._written[use] += 1
        self._tokens[tokens] += 1
        self._supervised[supervised] += 1

    def finish(
        self,
        *,
        template: TemplateFacts | None = None,
        samples: Iterable[SampleRow] = (),
        near_duplicates: NearReport | None = None,
        conflicts: ConflictReport | None = None,
    ) -> DataReport:
        """The report. ValueError (a bug of the gate) when its sums do not agree."""
        files = [tally.report() for tally in self._files]
        kept = sum(file.kept for file in files)
        written = sum(self._written.values())
        from_files = any(file.use == "val" for file in files)
        held_out: Literal["files", "split", "none"] = "files" if from_files else "none"
        if not from_files and self._written["val"]:
            held_out = "split"
        return DataReport(
            kind=self._kind,
            files=files,
            read=sum(file.read for file in files),
            kept=kept,
            rejected=sum(file.rejected for file in files),
            train_rows=self._written["train"],
            val_rows=self._written["val"],
            parts=written - kept,
            held_out=held_out,
            val_ratio=self._settings.val_ratio,
            seed=self._settings.seed,
            rules={
                code: self._policy.action(code)
                for code, check in CHECKS.items()
                if len(check.actions) > 1
            },
            changes={name: self._changes[name] for name in CHANGES if self._changes[name]},
            reasons=_code_reports(self._reasons),
            findings=_code_reports(self._findings),
            near_duplicates=near_duplicates,
            conflicts=conflicts,
            unread_columns=self._unread_columns(),
            template=template,
            tokens=token_report(
                self._tokens,
                self._supervised,
                self._over_length,
                template.max_length if template else None,
            ),
            samples=list(samples),
        )

    def _see_columns(self, row: Mapping[str, object]) -> None:
        names = tuple(printable(str(name), 80) for name in row)
        tally = self._columns.get(names)
        if tally is None:
            if len(self._columns) == _COLUMN_SETS:
                return
            tally = self._columns[names] = _ColumnTally(len(names))
        tally.see(list(row.values()))

    def _unread_columns(self) -> list[UnreadColumns]:
        ranked = sorted(self._columns.items(), key=lambda item: -item[1].count)
        return [
            UnreadColumns(
                columns=list(names), count=tally.count, characters=tally.mean_lengths(names)
            )
            for names, tally in ranked
        ]


class _FileTally:
    def __init__(self, file: OpenFile, use: Use) -> None:
        self.file = file
        self.use: Use = use
        self.kept = 0
        self.shapes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def report(self) -> FileReport:
        rejected = sum(self.reasons.values())
        return FileReport(
            source=self.file.source,
            use=self.use,
            format=self.file.format,
            encoding=self.file.encoding,
            read=self.kept + rejected,
            kept=self.kept,
            rejected=rejected,
            shapes=dict(self.shapes),
            reasons=dict(self.reasons),
            notes=list(self.file.notes),
        )


class _CodeTally:
    def __init__(self) -> None:
        self.count = 0
        self.examples: list[Example] = []


class _ColumnTally:
    def __init__(self, columns: int) -> None:
        self.count = 0
        self._characters = [0] * columns

    def see(self, values: Sequence[object]) -> None:
        self.count += 1
        if self.count <= _SAMPLED_ROWS:
            for index, value in enumerate(values):
                self._characters[index] += len(value) if isinstance(value, str) else 0

    def mean_lengths(self, names: Sequence[str]) -> dict[str, float]:
        seen = min(self.count, _SAMPLED_ROWS)
        pairs = zip(names, self._characters, strict=True)
        return {name: round(characters / seen, 1) for name, characters in pairs}


def _code_reports(tallies: Mapping[str, _CodeTally]) -> list[CodeReport]:
    """One report a code, the most frequent first, each with its first examples."""
    ranked = sorted(tallies.items(), key=lambda item: (-item[1].count, item[0]))
    return [
        CodeReport(
            code=code,
            meaning=CHECKS[code].en,
            meaning_zh=CHECKS[code].zh,
            count=tally.count,
            examples=tally.examples,
        )
        for code, tally in ranked
    ]


def _excerpt(row: object) -> str:
    return _cut(row) if isinstance(row, str) else _cut(json_line(row).rstrip("\n"))


def _cut(text: str | bytes) -> str:
    if isinstance(text, bytes):
        text = text[: 4 * _EXCERPT].decode("utf-8", "ignore")
    return printable(text[: 2 * _EXCERPT].strip(), _EXCERPT)
