"""The data report: every row accounted for, by file, reason and change, with token counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from palmswift.data.gate import Passage, Sieve, Use
from palmswift.data.reasons import CHANGES, REASONS
from palmswift.data.row import Conversation, Rejection
from palmswift.data.template import Judgement, TemplateFacts, Verdict
from palmswift.recipes.recipe import DataSettings

if TYPE_CHECKING:
    from rich.table import Table

_EXAMPLES = 3
_BINS = 40


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class FileReport(_Document):
    """What became of one input file's rows; `read = kept + rejected`, or it does not exist."""

    source: str
    use: Use
    format: str
    encoding: str
    read: int
    kept: int
    rejected: int
    shapes: dict[str, int]
    """Shape to the number of kept rows that had it."""
    reasons: dict[str, int]
    """Reason code to the number of rows rejected for it."""

    @model_validator(mode="after")
    def _every_row_accounted_for(self) -> FileReport:
        if self.read != self.kept + self.rejected or self.rejected != sum(self.reasons.values()):
            raise ValueError(f"{self.source}: read {self.read}, {self.kept}+{self.rejected} known")
        return self


class Example(_Document):
    """One rejected row."""

    place: str
    """`file:line`."""
    detail: str


class ReasonReport(_Document):
    """The rows rejected for one reason, over all files."""

    code: str
    meaning: str
    count: int
    examples: list[Example]


class Spread(_Document):
    """How a count is spread over the kept rows."""

    min: int
    median: int
    p95: int
    max: int
    total: int


class Bin(_Document):
    """Rows of `start` to `stop - 1` tokens: those kept, and those over the length limit."""

    start: int
    stop: int
    kept: int
    over_length: int


class TokenReport(_Document):
    """What the template counted, in tokens a row; spreads are over kept rows."""

    tokens: Spread
    supervised: Spread
    histogram: list[Bin]


class DataReport(_Document):
    """`report.json`: what was read, kept and rejected, and what the kept rows are like."""

    version: int = 1
    files: list[FileReport]
    read: int
    kept: int
    rejected: int
    train_rows: int
    val_rows: int
    held_out: Literal["files", "split", "none"]
    """Where validation rows come from."""
    val_ratio: float
    seed: int
    conflicting_answers: int
    """Kept rows whose question also stands with another answer; they are kept."""
    changes: dict[str, int]
    """Kind of change (`palmswift.data.reasons.CHANGES`) to the number of kept rows."""
    reasons: list[ReasonReport]
    template: TemplateFacts | None
    """None when no row came as far as the template."""
    tokens: TokenReport | None
    """None when no row is kept."""

    @model_validator(mode="after")
    def _sums_agree(self) -> DataReport:
        files = self.files
        sums = [sum(file.read for file in files), sum(file.kept for file in files)]
        if [self.read, self.kept] != sums or self.read != self.kept + self.rejected:
            raise ValueError("the counts of the files do not add up to the report's")
        if self.kept != self.train_rows + self.val_rows:
            raise ValueError("kept rows are not the rows trained on and held out")
        return self


def build_report(passage: Passage, settings: DataSettings) -> DataReport:
    """The report on what came through the gate."""
    sieves, split = passage.sieves, passage.split
    kept = [row for sieve in sieves for row in sieve.kept]
    files = [_file_report(sieve) for sieve in sieves]
    from_files = any(sieve.use == "val" for sieve in sieves)
    judgement = passage.judgement
    return DataReport(
        files=files,
        read=sum(file.read for file in files),
        kept=len(kept),
        rejected=sum(file.rejected for file in files),
        train_rows=len(split.train),
        val_rows=len(split.val),
        held_out="files" if from_files else "split" if split.val else "none",
        val_ratio=settings.val_ratio,
        seed=settings.seed,
        conflicting_answers=_conflicting(kept),
        changes=_change_counts(kept),
        reasons=_reason_reports(rejection for sieve in sieves for rejection in sieve.rejected),
        template=judgement.facts if judgement else None,
        tokens=_token_report(judgement) if judgement and kept else None,
    )


def _file_report(sieve: Sieve) -> FileReport:
    return FileReport(
        source=sieve.file.source,
        use=sieve.use,
        format=sieve.file.format,
        encoding=sieve.file.encoding,
        read=len(sieve.file.rows),
        kept=len(sieve.kept),
        rejected=len(sieve.rejected),
        shapes=dict(Counter(row.shape for row in sieve.kept)),
        reasons=dict(Counter(rejection.code for rejection in sieve.rejected)),
    )


def _token_report(judgement: Judgement) -> TokenReport:
    kept: list[Verdict] = []
    over_length: list[int] = []
    for verdict in judgement.verdicts:
        reason = verdict.reason(judgement.facts)
        if reason is None:
            kept.append(verdict)
        elif reason[0] == "over_length":
            over_length.append(verdict.n_tokens)
    tokens = [verdict.n_tokens for verdict in kept]
    return TokenReport(
        tokens=spread(tokens),
        supervised=spread([verdict.n_supervised for verdict in kept]),
        histogram=histogram(tokens, over_length),
    )


def _reason_reports(rejections: Iterable[Rejection]) -> list[ReasonReport]:
    """One report a reason, the most frequent first, each with its first examples."""
    by_code: dict[str, list[Rejection]] = {}
    for rejection in rejections:
        by_code.setdefault(rejection.code, []).append(rejection)
    return [
        ReasonReport(
            code=code,
            meaning=REASONS[code].en,
            count=len(rows),
            examples=[Example(place=str(row.place), detail=row.detail) for row in rows[:_EXAMPLES]],
        )
        for code, rows in sorted(by_code.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _change_counts(kept: Iterable[Conversation]) -> dict[str, int]:
    """How many kept rows each kind of change was made to."""
    counts = Counter(change for row in kept for change in row.changes)
    return {change: counts[change] for change in CHANGES if counts[change]}


def _conflicting(kept: Sequence[Conversation]) -> int:
    """Kept rows whose question also stands with another answer (equal rows are gone by now)."""
    counts = Counter(row.question_digest for row in kept)
    return sum(count for count in counts.values() if count > 1)


def spread(counts: Sequence[int]) -> Spread:
    """Minimum, median, 95th percentile (nearest rank), maximum and sum of at least one count."""
    ordered = sorted(counts)

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Spread(min=ordered[0], median=at(0.5), p95=at(0.95), max=ordered[-1], total=sum(ordered))


def histogram(kept: Sequence[int], over_length: Sequence[int]) -> list[Bin]:
    """Token counts in at most 40 bins of equal width, from 0 to the longest row."""
    longest = max([*kept, *over_length])
    width = longest // _BINS + 1
    kept_bins = Counter(count // width for count in kept)
    over_bins = Counter(count // width for count in over_length)
    return [
        Bin(
            start=number * width,
            stop=(number + 1) * width,
            kept=kept_bins[number],
            over_length=over_bins[number],
        )
        for number in range(longest // width + 1)
    ]


def summary_table(report: DataReport) -> Table:
    """The report for a terminal: a line a file, and below them a line a reason."""
    from rich.markup import escape
    from rich.table import Table

    footer = f"{report.train_rows} to train on, {report.val_rows} held out"
    table = Table(show_footer=True)
    table.add_column("file", footer, overflow="fold")
    table.add_column("read", str(report.read), justify="right")
    table.add_column("kept", str(report.kept), justify="right", style="green")
    table.add_column("rejected", str(report.rejected), justify="right", style="red")
    for file in report.files:
        cells = (str(file.read), str(file.kept), str(file.rejected))
        name = f"{file.source} ({file.use}, {file.format}, {file.encoding})"
        table.add_row(escape(name), *cells)
    if report.reasons:
        table.add_section()
    for reason in report.reasons:
        first = reason.examples[0]
        where = f"{first.place}{', …' if reason.count > 1 else ''}"
        table.add_row(escape(f"{reason.code}  ({where})"), "", "", str(reason.count), style="dim")
    return table
