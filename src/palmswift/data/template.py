"""What ms-swift's own template says about each row, asked of a child process."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from palmswift.data.policy import Action
from palmswift.data.row import Kind
from palmswift.data.sample import SampleRow
from palmswift.data.template_wire import CHUNK, CHUNK_BYTES, ChunkFolder, packed_size
from palmswift.data.verdict import Verdicts
from palmswift.errors import ChildError, Problem
from palmswift.files import write_text
from palmswift.process import ProcessGroup
from palmswift.recipes.recipe import SwiftValue

_LOG_LINES = 8
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt)\b")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class TemplateSpec(_Document):
    """How training will call ms-swift: what of it changes the tokens is given to the template."""

    command: Literal["sft", "pt", "rlhf"] = "sft"
    arguments: dict[str, SwiftValue]
    """`model` (a folder with config and tokenizer, or a hub id) and the recipe's arguments."""
    env: dict[str, str] = Field(default_factory=dict)

    @property
    def model(self) -> str:
        """The folder or the hub id; of the latter ms-swift fetches config and tokenizer only."""
        return str(self.arguments["model"])


class TemplateFacts(_Document):
    """The settings that the rows were measured under, as ms-swift resolved them."""

    template: str
    max_length: int | None
    truncation_strategy: str
    loss_scale: str
    swift_version: str
    batched_rows: int = 0
    """Rows whose tokens were counted in batches, from the strings that the template makes."""
    checked_rows: int = 0
    """Those of them for which `Template.encode` was asked as well, and gave the same tokens."""
    not_batched: str = ""
    """Why no row was counted in batches; empty when they were."""


class WorkerSpec(_Document):
    """What the child process is told."""

    template: TemplateSpec
    kind: Kind
    over_length: Literal["reject", "truncate", "split"]
    samples: int
    batched: bool


@dataclass(frozen=True)
class Judgement:
    """The template's settings, a verdict on each row, and some rows as the model sees them."""

    facts: TemplateFacts
    verdicts: Verdicts
    samples: list[SampleRow]


class TemplateJudge:
    """Encodes rows with the recipe's template in a child process, while the caller reads on.

    The child starts (and imports ms-swift, which takes most of a minute) when the block is
    entered. It is gone, with its files, when the block is left.
    """

    def __init__(
        self,
        spec: TemplateSpec,
        kind: Kind,
        *,
        over_length: Action,
        log: Path,
        samples: int = 8,
        batched: bool = True,
    ) -> None:
        """`over_length` is the action of that check; `batched=False` asks `encode` for each row."""
        if over_length not in ("reject", "truncate", "split"):
            raise ValueError(f"over_length: {over_length}")
        self._told = WorkerSpec(
            template=spec, kind=kind, over_length=over_length, samples=samples, batched=batched
        )
        self._log = log
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        self._chunks: list[int] = []
        """How many rows each chunk has."""

    def __enter__(self) -> TemplateJudge:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # Beside the log and not in /tmp, which may be held in memory.
        self._temporary = tempfile.TemporaryDirectory(
            prefix=".palmswift-template-", dir=self._log.parent
        )
        self._folder = ChunkFolder(Path(self._temporary.name))
        write_text(self._folder.spec, self._told.model_dump_json())
        argv = [sys.executable, "-m", "palmswift.data.template_worker", self._temporary.name]
        # Only a tokenizer is loaded: without a visible GPU none of its memory is taken.
        env = {**self._told.template.env, "CUDA_VISIBLE_DEVICES": ""}
        env["TOKENIZERS_PARALLELISM"] = "true"
        if Path(self._told.template.model).is_dir():
            env |= {"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
        self._child = ProcessGroup(argv, log=self._log, env=env)
        self._child.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.stop()
        self._temporary.cleanup()

    def submit(self, rows: Sequence[dict[str, Any]]) -> None:
        """Hand over rows as `TrainingRow.as_row` gives them; returns at once.

        ChildError when the child has failed in the meantime.
        """
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            self._waiting.extend(some)
            self._waiting_bytes += packed_size(some)
            if len(self._waiting) >= CHUNK or self._waiting_bytes >= CHUNK_BYTES:
                self._hand_over()

    def finish(self, progress: Callable[[int, int], None] | None = None) -> Judgement:
        """Wait for the verdicts on all rows; `progress` is told rows answered and submitted.

        ChildError with the end of the log when the child fails (no ms-swift, no tokenizer).
        """
        if self._waiting:
            self._hand_over()
        self._folder.put_end(len(self._chunks))
        submitted = sum(self._chunks)
        answered = 0
        while self._wait() is None:
            while answered < len(self._chunks) and self._folder.has_answer(answered):
                answered += 1
            if progress is not None:
                progress(sum(self._chunks[:answered]), submitted)
        verdicts = Verdicts()
        for chunk in self._folder.answers(len(self._chunks)):
            verdicts.extend(chunk)
        if len(verdicts) != submitted:
            raise ChildError(
                f"the template answered for {len(verdicts)} of {submitted} rows",
                remedy=f"the whole output is in {self._log}",
            )
        return Judgement(
            TemplateFacts.model_validate_json(self._folder.facts.read_bytes()),
            verdicts,
            TypeAdapter(list[SampleRow]).validate_json(self._folder.samples.read_bytes()),
        )

    def _hand_over(self) -> None:
        if self._child.poll() is not None:
            raise self._failure()
        self._folder.put_rows(len(self._chunks), self._waiting)
        self._chunks.append(len(self._waiting))
        self._waiting = []
        self._waiting_bytes = 0

    def _wait(self) -> int | None:
        """0 once the child has ended well, None while it works."""
        try:
            code = self._child.wait(0.5)
        except subprocess.TimeoutExpired:
            return None
        if code:
            raise self._failure()
        return code

    def _failure(self) -> ChildError:
        model = self._told.template.model
        return ChildError(
            f"ms-swift's template for {model} could not be asked (exit code {self._child.poll()})",
            [Problem(_last_error(self._log), str(self._log))],
            remedy=f"the whole output is in {self._log}",
        )


def _last_error(log: Path) -> str:
    """The exception that ended the child, without its traceback; else the log's last lines."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    raised = [number for number, line in enumerate(lines) if _EXCEPTION.match(line)]
    begin = raised[-1] if raised else 0
    return "\n      ".join(lines[begin:][-_LOG_LINES:]) or "it said nothing"
