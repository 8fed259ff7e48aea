"""The second pass: the spool is read once, and every row goes to the file it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from palmswift.data.outcome import Outcome
from palmswift.data.progress import Progress
from palmswift.data.report import ConflictReport, DataReport, NearReport, Pair, Use
from palmswift.data.row import Rejection, json_line, printable
from palmswift.data.spool import Candidate, Spool
from palmswift.data.tally import PRIVATE, ReportBuilder
from palmswift.files import atomic_text

TRAIN, VAL, REJECTED = "train.jsonl", "val.jsonl", "rejected.jsonl"

_NAMES: dict[Use, str] = {"train": TRAIN, "val": VAL}
_TOLD_EVERY = 1024
_EXCERPT = 1000


class _Line(NamedTuple):
    """A row as it is written, and what the template counted in it."""

    line: bytes
    tokens: int
    supervised: int


class RowWriter:
    """Writes train.jsonl, val.jsonl and rejected.jsonl into a folder, whole or not at all."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._streams: dict[Use, IO[str]] = {}
        self._parts: set[bytes] = set()
        self._texts: dict[int, str] = {}

    def clear(self) -> None:
        """Take away the rows of an earlier run: they would be trained on as if they were these."""
        for name in (*_NAMES.values(), REJECTED):
            (self._out / name).unlink(missing_ok=True)

    def write(
        self, spool: Spool, outcome: Outcome, builder: ReportBuilder, progress: Progress
    ) -> DataReport:
        """Write every row of the spool, and tell `builder` of it; the report.

        After `outcome.failure` only rejected.jsonl is written.
        """
        progress.begin("writing", len(outcome.index))
        self._texts = dict.fromkeys(_shown(outcome), "")
        try:
            with ExitStack() as stack:
                rejected = stack.enter_context(atomic_text(self._out / REJECTED))
                for record in self._rejections(spool, outcome, builder, progress, stack):
                    why = {"code": record.code, "detail": record.detail, "row": record.row}
                    rejected.write(json_line({**record.place._asdict(), **why}))
            return self._report(outcome, builder)
        except BaseException:
            self.clear()
            raise

    def _rejections(
        self,
        spool: Spool,
        outcome: Outcome,
        builder: ReportBuilder,
        progress: Progress,
        stack: ExitStack,
    ) -> Iterator[Rejection]:
        """Every rejected row in reading order; the others are written on the way."""
        row = 0
        for record in spool:
            if isinstance(record, Rejection):
                builder.rejected(record)
                yield record
                continue
            if row in self._texts and not PRIVATE.intersection(record.findings):
                self._texts[row] = _text(record.line)
            reason, lines, changes = self._fate(row, record, outcome)
            if reason is not None:
                rejection = _rejection(row, record, reason, outcome)
                builder.rejected(rejection, tokens=_tokens(row, outcome))
                yield rejection
            else:
                findings = (*record.findings, *outcome.findings(row))
                place = outcome.index.place(row)
                builder.kept(
                    place, record.shape, changes=changes, findings=findings, line=record.line
                )
                self._put(lines, outcome.use(row), builder, None if outcome.failure else stack)
            row += 1
            if row % _TOLD_EVERY == 0:
                progress.at(row)

    def _put(
        self, lines: list[_Line], use: Use, builder: ReportBuilder, stack: ExitStack | None
    ) -> None:
        """Write the lines, unless the files are not to be; without any there is no file."""
        for line in lines:
            builder.wrote(use, line.tokens, line.supervised)
            if stack is not None:
                if use not in self._streams:
                    self._streams[use] = stack.enter_context(atomic_text(self._out / _NAMES[use]))
                self._streams[use].write(line.line.decode("utf-8") + "\n")

    def _fate(
        self, row: int, record: Candidate, outcome: Outcome
    ) -> tuple[tuple[str, str] | None, list[_Line], tuple[str, ...]]:
        """Why the row is rejected, or else the lines to write of it and all its changes."""
        reason = outcome.rejection(row)
        if reason is not None:
            return reason, [], ()
        lines, changes = self._lines(row, record, outcome)
        if not lines:
            return ("duplicate", "each of its parts stands elsewhere"), [], ()
        return None, lines, (*record.changes, *changes)

    def _lines(
        self, row: int, record: Candidate, outcome: Outcome
    ) -> tuple[list[_Line], tuple[str, ...]]:
        """The row, or the parts that the template divided it into; what that changed."""
        if outcome.judgement is None:
            raise RuntimeError("a row is kept that the template was not asked about")
        verdicts = outcome.judgement.verdicts
        parts, counts = verdicts.parts(row), verdicts.part_counts(row)
        if parts is None or counts is None:
            line = _Line(record.line, verdicts.n_tokens(row), verdicts.n_supervised(row))
            return [line], ()
        changes = ["split_at_turns" if len(parts) > 1 else "older_turns_dropped"]
        lines = []
        for part, count in zip(_divided(record.line, parts), counts, strict=True):
            digest = hashlib.blake2b(part, digest_size=16).digest()
            if digest in self._parts or outcome.stands_elsewhere(digest):
                changes.append("repeated_part_dropped")
                continue
            self._parts.add(digest)
            lines.append(_Line(part, *count))
        return lines, tuple(dict.fromkeys(changes))

    def _report(self, outcome: Outcome, builder: ReportBuilder) -> DataReport:
        near, conflicts = outcome.relations.near, outcome.relations.conflicts
        judgement = outcome.judgement
        return builder.finish(
            template=judgement.facts if judgement else None,
            samples=[
                sample.model_copy(update={"place": str(outcome.index.place(sample.index))})
                for sample in (judgement.samples if judgement else ())
                if outcome.rejection(sample.index) is None
            ],
            near_duplicates=near
            and NearReport(
                clusters=near.clusters,
                rows=near.rows,
                largest=near.largest,
                examples=[self._pair(*pair, outcome=outcome) for pair in near.pairs],
            ),
            conflicts=conflicts
            and ConflictReport(
                questions=conflicts.questions,
                rows=conflicts.rows,
                examples=[self._pair(*pair, outcome=outcome) for pair in conflicts.pairs],
            ),
        )

    def _pair(
        self, first: int, second: int, similarity: float | None = None, *, outcome: Outcome
    ) -> Pair:
        return Pair(
            first=str(outcome.index.place(first)),
            second=str(outcome.index.place(second)),
            first_text=self._texts[first],
            second_text=self._texts[second],
            similarity=similarity,
        )


def _shown(outcome: Outcome) -> Iterator[int]:
    """The rows whose texts stand in the report beside each other."""
    for found in (outcome.relations.near, outcome.relations.conflicts):
        for pair in found.pairs if found else ():
            yield from pair[:2]


def _text(line: bytes) -> str:
    """The beginning of what is said in a row, a line for each turn."""
    messages = msgspec.json.decode(line)["messages"]
    said = [message["content"] for message in messages if message["role"] != "system"]
    return printable("\n".join(said), _EXCERPT)


def _rejection(row: int, record: Candidate, reason: tuple[str, str], outcome: Outcome) -> Rejection:
    read = msgspec.json.decode(record.line) if record.source is None else record.source
    return Rejection(outcome.index.place(row), reason[0], printable(reason[1]), read)


def _tokens(row: int, outcome: Outcome) -> int:
    return outcome.judgement.verdicts.n_tokens(row) if outcome.judgement else 0


def _divided(line: bytes, parts: list[tuple[int, int]]) -> Iterator[bytes]:
    """The rows that a row becomes: its messages in each range, after its system message."""
    document = msgspec.json.decode(line)
    messages = document["messages"]
    head = [message for message in messages[:1] if message["role"] == "system"]
    for start, stop in parts:
        yield msgspec.json.encode({**document, "messages": head + messages[start:stop]})
