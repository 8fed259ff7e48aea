"""The child process that asks ms-swift's template: `python -m palmswift.data.template_worker DIR`.

It loads config and tokenizer, never weights, and needs no GPU.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import swift

from palmswift.data.real_template import RealTemplate, template_arguments
from palmswift.data.template import TemplateFacts, WorkerSpec
from palmswift.data.template_wire import ChunkFolder
from palmswift.data.verdict import Verdict, verdict_on
from palmswift.files import write_json, write_text

_POLL_SECONDS = 0.02


class Examiner:
    """Gives the verdict on each row, by the recipe's template and the policy for long rows."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._arguments = template_arguments(spec.template)
        self._real = RealTemplate(self._arguments, spec.kind)

    @property
    def facts(self) -> TemplateFacts:
        """The settings, and how the rows were counted so far."""
        return TemplateFacts(
            template=self._arguments.template,
            max_length=self._arguments.max_length,
            truncation_strategy=self._arguments.truncation_strategy,
            loss_scale=self._arguments.loss_scale,
            swift_version=swift.__version__,
        )

    def verdicts(self, rows: Sequence[dict[str, Any]]) -> list[Verdict]:
        """The verdict on each row, in order."""
        limit = self._arguments.max_length
        return [verdict_on(self._real.measure(row), self._spec.kind, limit) for row in rows]


def _chunks(folder: ChunkFolder) -> Iterator[list[dict[str, Any]]]:
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


def main(argv: Sequence[str]) -> int:
    """Answer every chunk that is put into DIR, then write facts and samples."""
    (name,) = argv
    folder = ChunkFolder(Path(name))
    spec = WorkerSpec.model_validate_json(folder.spec.read_bytes())
    examiner = Examiner(spec)
    for number, rows in enumerate(_chunks(folder)):
        folder.put_answer(number, examiner.verdicts(rows))
    write_json(folder.samples, [])
    write_text(folder.facts, examiner.facts.model_dump_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
