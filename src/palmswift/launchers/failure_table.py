"""Writes the tables of failures in docs/failures.md, from the table that diagnoses them.

`python -m palmswift.launchers.failure_table`
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from palmswift.files import with_part, write_text
from palmswift.launchers.failures import ENDED_BY_SIGNAL, FAILURES
from palmswift.launchers.memory_failure import GPU_IN_USE_REMEDY, OUT_OF_MEMORY_REMEDY
from palmswift.paths import project_root

BEGIN = "<!-- written by: python -m palmswift.launchers.failure_table -->"
END = "<!-- end of the written part -->"

JUDGED: dict[str, str] = {
    "no_steps": "no step was taken, or none was logged",
    "no_trained_tokens": "no token has a loss: every loss is NaN or 0, and every gradient is 0",
    "loss_not_finite": "a training loss is NaN or infinite",
    "loss_zero": "the loss is 0 at every step",
    "loss_stuck": "the loss is the same number at every step",
    "loss_exploded": "the last tenth of the run lies more than 1.5 times above the first, and more "
    "than 3 times above the lowest",
    "grad_not_finite": "from some step to the end no gradient is finite (single ones are skipped "
    "steps of float16, and are none)",
    "grad_zero": "GRPO: every gradient is 0 (its loss is near 0 by its making, and tells nothing)",
    "reward_flat": "GRPO: all answers to a question always get the same reward",
    "no_eval": "there are validation rows and no evaluation ran",
    "eval_not_finite": "an evaluation loss is NaN or infinite",
    "no_checkpoint": "no whole checkpoint is there",
    "checkpoint_broken": "the checkpoint to use lacks a file that loading it needs, or one is cut "
    "off",
    "weights_not_finite": "a tensor of the checkpoint to use holds NaN or an infinite number",
    "weights_unchanged": "the adapter is still zero, or all weights are those of the base",
}
"""What makes a run that ended with exit code 0 a failed one (`verdict.py`, `loss_history.py`)."""


def tables() -> str:
    """What is judged after the end, and every class of failure that a log tells, as Markdown."""
    memory = (
        ("out_of_memory", "the GPU's memory ran out; in which phase is told", OUT_OF_MEMORY_REMEDY),
        ("gpu_in_use", "other processes hold the GPU's memory that was lacking", GPU_IN_USE_REMEDY),
    )
    told = ((failure.kind, failure.cause, failure.remedy) for failure in FAILURES)
    by_signal = (row for row in ENDED_BY_SIGNAL.values() if row[0] not in _kinds())
    return "\n".join(
        [
            "| class | the run has failed, though its exit code is 0, for |",
            "|---|---|",
            *(f"| `{kind}` | {_cell(meaning)} |" for kind, meaning in JUDGED.items()),
            "",
            "| class | cause | what to do |",
            "|---|---|---|",
            *_rows(memory),
            *_rows(told),
            *_rows(by_signal),
            "| `unknown` | anything else: its last error line | the whole log: its path is told |",
        ]
    )


def with_tables(page: str) -> str:
    """`page` with the part between its two marks renewed. ValueError: a mark is missing."""
    return with_part(page, BEGIN, END, tables())


def main() -> int:
    """Renew the tables in docs/failures.md; returns 0."""
    path = project_root() / "docs" / "failures.md"
    write_text(path, with_tables(path.read_text(encoding="utf-8")))
    print(path)
    return 0


def _kinds() -> set[str]:
    return {failure.kind for failure in FAILURES}


def _rows(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    return [f"| `{kind}` | {_cell(cause)} | {_cell(remedy)} |" for kind, cause, remedy in rows]


def _cell(text: str) -> str:
    """Without the places that a log's own words fill."""
    plain = re.sub(r":? ?\(?\{\w+\}\)?", lambda found: " …" if "(" not in found[0] else "", text)
    return plain.replace("|", "\\|").replace("<", "&lt;").strip()


if __name__ == "__main__":
    raise SystemExit(main())
