"""The gate itself: every row is read once, judged in several ways, and written once.

First pass: read, canonical form, exact duplicates; what is left goes to a spool on disk, numbers
about it to an index in memory, and its text to ms-swift's template in a child process. Second
pass, with all verdicts known: near duplicates, contradictions and the split are decided on the
numbers alone, and the spool is read once to write the files. So memory holds some 400 bytes a row,
whatever the rows hold.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from palmswift.data.checks import Canonicaliser
from palmswift.data.index import RowIndex
from palmswift.data.outcome import Outcome
from palmswift.data.policy import Policy
from palmswift.data.progress import Progress
from palmswift.data.read import DataFile
from palmswift.data.report import DataReport, Use
from palmswift.data.row import Kind, Rejection, RowError, SourceRow, TrainingRow
from palmswift.data.spool import Candidate, Spool
from palmswift.data.tally import ReportBuilder
from palmswift.data.template import TemplateJudge, TemplateSpec
from palmswift.data.writer import RowWriter
from palmswift.errors import GateError, InputError, Problem
from palmswift.files import NO_ROOM
from palmswift.recipes.recipe import DataSettings

_CHUNK, _CHUNK_BYTES = 128, 1 << 20
"""Rows that are handed to the template at once, and bytes of JSON, whichever comes first."""


class Passage(NamedTuple):
    """What came of a run through the gate."""

    report: DataReport
    failure: GateError | None
    """Why the kept rows are not enough to train or to validate with."""


def pass_rows(
    files: Sequence[tuple[DataFile, Use]],
    kind: Kind,
    settings: DataSettings,
    template: TemplateSpec,
    *,
    out: Path,
    log: Path,
    progress: Progress,
) -> Passage:
    """Write train.jsonl, val.jsonl and rejected.jsonl to `out`; those of an earlier run go first.

    Training files are given before validation files. After a failure, and after any exception,
    train.jsonl and val.jsonl are not there.

    ChildError: the template could not be asked. InputError: a file broke off while it was read, or
    the disk is full. In both cases rejected.jsonl is not there either.
    """
    writer = RowWriter(out)
    writer.clear()
    beside = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    try:
        with (
            _room_told(beside),
            tempfile.TemporaryDirectory(dir=beside, prefix=".palmswift-rows-") as folder,
            Spool(Path(folder) / "rows") as spool,
            _Intake(files, kind, settings, template, log) as intake,
        ):
            intake.read(spool, progress)
            outcome = intake.outcome(progress)
            builder = ReportBuilder(files, settings, kind)
            report = writer.write(spool, outcome, builder, progress)
            return Passage(report, outcome.failure)
    finally:
        progress.end()


@contextmanager
def _room_told(folder: Path) -> Iterator[None]:
    """Say in plain words that the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        remedy = "free as much space as twice the size of the data, or choose another --out"
        problem = Problem(error.strerror or "no room", str(folder), remedy)
        raise InputError("the rows cannot be written", [problem]) from None


class _Intake:
    """The first pass: reads every file, and hands the rows on."""

    def __init__(
        self,
        files: Sequence[tuple[DataFile, Use]],
        kind: Kind,
        settings: DataSettings,
        template: TemplateSpec,
        log: Path,
    ) -> None:
        self._files = files
        self._kind = kind
        self._settings = settings
        self._policy = Policy(settings.rules)
        self._canonical = Canonicaliser(kind, settings)
        self._index = RowIndex([(file.source, use) for file, use in files], kind)
        self._seen: dict[bytes, int] = {}
        self._read: Counter[Use] = Counter()
        self._chunk: list[dict[str, Any]] = []
        self._chunk_bytes = 0
        over_length = self._policy.action("over_length")
        self._template = TemplateJudge(template, kind, over_length=over_length, log=log)
        self._judge: TemplateJudge | None = None
        self._stack = ExitStack()

    def __enter__(self) -> _Intake:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def read(self, spool: Spool, progress: Progress) -> None:
        """Read all files; every row is in the spool afterwards."""
        progress.begin("reading", sum(file.size for file, _ in self._files))
        before = 0
        for number, (file, use) in enumerate(self._files):
            for row in file.rows():
                self._read[use] += 1
                record = row if isinstance(row, Rejection) else self._candidate(number, row)
                spool.add(record)
                if self._read[use] % _CHUNK == 0:
                    progress.at(before + file.position)
            before += file.size
        self._submit()
        self._index.close()

    def _candidate(self, file: int, source: SourceRow) -> Candidate | Rejection:
        try:
            row = self._canonical.row(source)
        except RowError as error:
            return Rejection(source.place, error.code, error.detail, source.value)
        document = row.as_row()
        line = msgspec.json.encode(document)
        digest = hashlib.blake2b(line, digest_size=16).digest()
        findings = row.findings
        first = self._seen.setdefault(digest, len(self._index))
        if first != len(self._index):
            code = (
                "duplicate" if self._index.use(first) == self._files[file][1] else "also_in_train"
            )
            if self._policy.action(code) == "reject":
                return row.reject(code, f"the same as {self._index.place(first)}")
            findings |= {code}
        self._index.add(file, row, digest)
        self._chunk.append(document)
        self._chunk_bytes += len(line)
        if len(self._chunk) == _CHUNK or self._chunk_bytes >= _CHUNK_BYTES:
            self._submit()
        read = None if _says_the_same(row, document) else row.source
        return Candidate(line, row.shape, tuple(row.changes), tuple(findings), read)

    def _submit(self) -> None:
        """Hand rows to the template, whose child process starts with the first of them."""
        if not self._chunk:
            return
        if self._judge is None:
            self._judge = self._stack.enter_context(self._template)
        self._judge.submit(self._chunk)
        self._chunk, self._chunk_bytes = [], 0

    def outcome(self, progress: Progress) -> Outcome:
        """Wait for the template, then decide on every row."""
        judgement = None
        if self._judge is not None:
            progress.begin("asking ms-swift's template", len(self._index))
            judgement = self._judge.finish(lambda answered, _: progress.at(answered))
        progress.begin("comparing rows")
        return Outcome(
            self._index, judgement, self._seen, self._read, self._policy, self._kind, self._settings
        )


def _says_the_same(row: TrainingRow, document: dict[str, Any]) -> bool:
    """Whether what was read need not be kept too; `True == 1`, so rows with labels say no."""
    return not row.changes and row.label is None and not row.extra and row.source == document
