"""The child process that asks ms-swift's template: `python -m palmswift.data.template_worker DIR`.

It loads config and tokenizer, never weights, and needs no GPU.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import swift

from palmswift.data.batch_template import BatchTemplate, Counted
from palmswift.data.batch_tokenizer import BatchTokenizer
from palmswift.data.real_template import RealTemplate, template_arguments
from palmswift.data.sample import SampleRow
from palmswift.data.template import TemplateFacts, WorkerSpec
from palmswift.data.template_samples import Reservoir, spans
from palmswift.data.template_wire import ChunkFolder
from palmswift.data.turns import TooLong, fit, part_of
from palmswift.data.verdict import Measured, Part, Verdict, too_long, verdict_on
from palmswift.files import write_json, write_text

_POLL_SECONDS = 0.02

SWITCH_SECONDS = 0.001

_CHECKED = 1 / 1000
"""Of the rows counted in batches, how many are encoded by the template as well; and the first of
each form."""

Row = dict[str, Any]


class Examiner:
    """Gives the verdict on each row, by the recipe's template and the policy for long rows."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._kind = spec.kind
        self._policy = spec.over_length
        if spec.kind == "pt":  # it has no turns
            self._policy = "reject"
        elif spec.over_length == "split" and spec.kind != "sft":
            # A part of a preference pair or of a rated dialogue would have lost its rating.
            self._policy = "truncate"
        self._arguments = template_arguments(spec.template)
        self._real = RealTemplate(self._arguments, spec.kind)
        self._why_not = self._real.why_not_batched if spec.batched else "it was not asked for"
        self._batch: BatchTemplate | None = None
        if not self._why_not:
            tokenizer = BatchTokenizer(self._real.tokenizer.backend_tokenizer)
            self._batch = BatchTemplate(self._real, tokenizer, spec.kind)
        self._random = random.Random(0)
        self._batched = self._checked = 0

    @property
    def batched(self) -> bool:
        """Whether rows are counted in batches where that is allowed."""
        return self._batch is not None

    @property
    def tokenizer(self) -> Any:
        """The model's, as ms-swift loads it (transformers)."""
        return self._real.tokenizer

    @property
    def facts(self) -> TemplateFacts:
        """The settings, and how the rows were counted so far."""
        return TemplateFacts(
            template=self._arguments.template,
            max_length=self._arguments.max_length,
            truncation_strategy=self._arguments.truncation_strategy,
            loss_scale=self._arguments.loss_scale,
            swift_version=swift.__version__,
            batched_rows=self._batched,
            checked_rows=self._checked,
            not_batched=self._why_not,
        )

    def verdicts(self, rows: Sequence[Row]) -> list[Verdict]:
        """The verdict on each row, in order."""
        limit = self._arguments.max_length
        divides = self._policy != "reject" and limit is not None
        # Whoever divides long rows has to know how long they are, whatever ms-swift does to them.
        with self._real.unlimited() if divides else nullcontext():
            measured = self.measure(rows)
            return [
                self._divided(row, limit)
                if divides and limit is not None and one.longest > limit
                else verdict_on(one, self._kind, limit)
                for row, one in zip(rows, measured, strict=True)
            ]

    def measure(self, rows: Sequence[Row]) -> list[Measured]:
        """Each row's tokens counted, in batches where that is allowed."""
        counted = [None] * len(rows) if self._batch is None else self._batch.count(rows)
        for row, one in zip(rows, counted, strict=True):
            checked = one is not None and (one.first or self._random.random() < _CHECKED)
            if one is not None and checked and not self._is_right(row, one):
                return self.measure(rows)
        self._batched += sum(one is not None for one in counted)
        return [
            self._real.measure(row) if one is None else one.measured
            for row, one in zip(rows, counted, strict=True)
        ]

    def sample(self, index: int, row: Row) -> list[SampleRow]:
        """The row as the model sees it, also one that is too long; of a preference pair both sides.

        Empty for a row that the template refuses.
        """
        for whole in (nullcontext(), self._real.unlimited()):
            try:
                with whole:
                    sequences = self._real.sequences(row)
            except Exception:  # noqa: BLE001  # the verdict has told what was raised
                continue
            return [
                SampleRow(
                    index=index,
                    side=sequence.side,
                    spans=spans(sequence.input_ids, sequence.labels, self._real.decode),
                )
                for sequence in sequences
            ]
        return []

    def _is_right(self, row: Row, counted: Counted) -> bool:
        """Whether the template gives the same tokens; if not, it alone is asked from now on."""
        measured, ids = self._real.measure_with_ids(row)
        self._checked += 1
        same = measured._replace(detail="") == counted.measured and (
            bool(measured.error) or ids == counted.ids
        )
        if not same:
            self._why_not = "a row had other tokens in a batch than from Template.encode"
            print(f"{self._why_not}: {row}\n{measured}\n{counted.measured}", file=sys.stderr)
            self._batch = None
            self._batched = self._checked = 0
        return same

    def _divided(self, row: Row, limit: int) -> Verdict:
        if self._policy == "reject":
            raise ValueError(self._policy)
        fitted = fit(row, lambda part: self.measure([part])[0], limit, self._policy)
        if isinstance(fitted, TooLong):
            detail = too_long(fitted.n_tokens, limit)
            if fitted.stop - fitted.start < len(row["messages"]) - 1:
                detail = f"turns {fitted.start + 1} to {fitted.stop} alone: {detail}"
            return Verdict(fitted.n_tokens, 0, "over_length", detail)
        verdicts = [verdict_on(part.measured, self._kind, limit) for part in fitted]
        bad = next((verdict for verdict in verdicts if verdict.code), None)
        parts = [
            Part(part.start, part.stop, verdict.n_tokens, verdict.n_supervised)
            for part, verdict in zip(fitted, verdicts, strict=True)
        ]
        return bad or Verdict(
            sum(part.n_tokens for part in parts),
            sum(part.n_supervised for part in parts),
            parts=tuple(parts),
        )


def _chunks(folder: ChunkFolder) -> Iterator[list[Row]]:
    """The chunks as they come; SystemExit when the process that would send them is gone."""
    parent = os.getppid()
    number = 0
    while number != folder.end:
        rows = folder.rows(number)
        if rows is not None:
            yield rows
            number += 1
        elif os.getppid() != parent:
            raise SystemExit("the process that asked is gone")
        else:
            time.sleep(_POLL_SECONDS)


class _Answers:
    """What was said of the chunks so far, and the rows that will be shown."""

    def __init__(self, folder: ChunkFolder, examiner: Examiner, samples: int) -> None:
        self._folder = folder
        self._examiner = examiner
        self._samples = samples
        self._begin()

    def _begin(self) -> None:
        self._index = 0
        self._training = Reservoir(self._samples)
        self._others = Reservoir(self._samples)

    def add(self, number: int, rows: Sequence[Row]) -> None:
        """Answer one chunk; all chunks anew when it turns out that batches cannot be trusted."""
        batched = self._examiner.batched
        verdicts = self._examiner.verdicts(rows)
        if batched and not self._examiner.batched:
            self._begin()
            for earlier in range(number):
                self.add(earlier, self._folder.rows(earlier) or [])
            verdicts = self._examiner.verdicts(rows)
        for row, verdict in zip(rows, verdicts, strict=True):
            part = verdict.parts[0] if verdict.parts else None
            shown = part_of(row, part.start, part.stop) if part else row
            (self._others if verdict.code else self._training).offer(self._index, shown)
            self._index += 1
        self._folder.put_answer(number, verdicts)

    def end(self) -> None:
        """Write facts, and samples: rows that train if there are enough, else others as well."""
        chosen = self._training.rows
        chosen += self._others.rows[: self._samples - len(chosen)]
        samples = [
            sample.model_dump()
            for index, row in sorted(chosen, key=lambda one: one[0])
            for sample in self._examiner.sample(index, row)
        ]
        write_json(self._folder.samples, samples)
        write_text(self._folder.facts, self._examiner.facts.model_dump_json())


def answer(folder: ChunkFolder, examiner: Examiner, samples: int) -> None:
    """Answer every chunk that is put into the folder, then write facts and samples."""
    answers = _Answers(folder, examiner, samples)
    for number, rows in enumerate(_chunks(folder)):
        answers.add(number, rows)
    answers.end()


def main(argv: Sequence[str]) -> int:
    """Answer in the folder DIR, which the process that asks has made."""
    (name,) = argv
    # Threads that come back from the tokenizer do not have to wait long for their turn.
    sys.setswitchinterval(SWITCH_SECONDS)
    folder = ChunkFolder(Path(name))
    spec = WorkerSpec.model_validate_json(folder.spec.read_bytes())
    answer(folder, Examiner(spec), spec.samples)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
