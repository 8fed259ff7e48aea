"""What ms-swift's own template says about each row, asked of a child process."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from palmswift.data.row import Conversation
from palmswift.errors import ChildError, Problem
from palmswift.files import read_jsonl, write_jsonl, write_text
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


class Verdict(_Document):
    """What `Template.encode` makes of one row."""

    index: int
    n_tokens: int = 0
    """Tokens of the row; of an over-long one too, where ms-swift tells them."""
    n_supervised: int = 0
    """Tokens that are trained on: labels that are not -100."""
    has_text: bool = False
    """Whether the supervised tokens hold more than control tokens and blank space."""
    ends_with_eos: bool = False
    control_token: str | None = None
    """A control token of this very tokenizer that stands in the row's text."""
    error: str | None = None
    """The exception's name when the row could not be encoded."""
    detail: str = ""

    def reason(self, facts: TemplateFacts) -> tuple[str, str] | None:
        """Reason code and detail of the rejection; None for a row that trains."""
        if self.error == "MaxLengthError":
            return "over_length", f"{self.n_tokens} tokens > max_length {facts.max_length}"
        if self.error:
            return "template_error", f"{self.error}: {self.detail}"
        if self.control_token:
            return "control_tokens", f"the text has {self.control_token}"
        if not self.n_supervised:
            return "zero_supervised_tokens", f"0 of {self.n_tokens} tokens"
        if not self.has_text:
            return "no_supervised_text", f"{self.n_supervised} supervised tokens without text"
        if not self.ends_with_eos:
            return "no_eos", f"cut to {self.n_tokens} tokens"
        return None


class WorkerSpec(_Document):
    """What the child process is told: the template, and where rows and answers lie."""

    template: TemplateSpec
    rows: Path
    verdicts: Path
    facts: Path


class Judgement(_Document):
    """The template's settings, and one verdict for each row in its order."""

    facts: TemplateFacts
    verdicts: list[Verdict]


def judge(rows: Sequence[Conversation], template: TemplateSpec, *, log: Path) -> Judgement:
    """Encode every row with the recipe's template in a child process.

    ChildError with the end of the log when the child fails (no ms-swift, no tokenizer).
    """
    with tempfile.TemporaryDirectory(prefix="palmswift-template-") as name:
        folder = Path(name)
        spec = WorkerSpec(
            template=template,
            rows=folder / "rows.jsonl",
            verdicts=folder / "verdicts.jsonl",
            facts=folder / "facts.json",
        )
        write_jsonl(spec.rows, (row.as_row() for row in rows))
        spec_file = folder / "spec.json"
        write_text(spec_file, spec.model_dump_json())
        _run_worker(spec_file, template, log)
        facts = TemplateFacts.model_validate_json(spec.facts.read_text(encoding="utf-8"))
        verdicts = [Verdict.model_validate(line) for line in read_jsonl(spec.verdicts)]
    if [verdict.index for verdict in verdicts] != list(range(len(rows))):
        raise ChildError(f"the template answered for {len(verdicts)} of {len(rows)} rows")
    return Judgement(facts=facts, verdicts=verdicts)


def _run_worker(spec_file: Path, template: TemplateSpec, log: Path) -> None:
    argv = [sys.executable, "-m", "palmswift.data.template_worker", str(spec_file)]
    # Only a tokenizer is loaded: without a visible GPU none of its memory is taken.
    env = {**template.env, "CUDA_VISIBLE_DEVICES": ""}
    if Path(template.model).is_dir():
        env |= {"MODELSCOPE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    with ProcessGroup(argv, log=log, env=env) as child:
        code = child.wait()
    if code != 0:
        raise ChildError(
            f"ms-swift's template for {template.model} could not be asked (exit code {code})",
            [Problem(_last_error(log), str(log))],
            remedy=f"the whole output is in {log}",
        )


def _last_error(log: Path) -> str:
    """The exception that ended the child, without its traceback; else the log's last lines."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    raised = [number for number, line in enumerate(lines) if _EXCEPTION.match(line)]
    begin = raised[-1] if raised else 0
    return "\n      ".join(lines[begin:][-_LOG_LINES:]) or "it said nothing"
