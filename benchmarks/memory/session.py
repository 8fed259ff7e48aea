"""One measuring session: materials, grid, longest row, record."""

from __future__ import annotations

import argparse
import datetime
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from benchmarks.memory.cases import Case, grid, longest, measured_recipe
from benchmarks.memory.materials import make_model
from benchmarks.memory.published import PUBLISHED, Published
from benchmarks.memory.runner import Kit, Measured, measure, template_overhead
from palmswift.files import write_json
from palmswift.plan.cards import FRAGMENTATION
from palmswift.plan.shapes import QWEN3, Shape
from palmswift.setup.gpus import ask_gpus

TOY = Shape(64, 2, 4, 2, 32, 128, 512, True, 2048)
"""What a dry run trains."""

_VERSIONS = ("ms-swift", "torch", "transformers", "peft", "bitsandbytes", "liger-kernel")
_LENGTH_STEP = 64
_ALLOCATED, _RESERVED = 0.03, 0.05
"""How far the planner may be from a card's peaks, as shares of them."""


class Record(BaseModel):
    """All that a session measured."""

    benchmark: Literal["memory"] = "memory"
    date: str
    what: str = "GPU memory of three optimizer steps of real `swift sft` on random weights"
    command: str
    dry_run: bool
    """On the CPU: the numbers are the process's, and say nothing about a card."""
    size: str
    card: str | None
    cap_mib: int | None
    versions: dict[str, str]
    cases: list[Measured]
    longest_tokens: int | None
    """The longest row of `longest_recipe` under the cap; None: not looked for."""
    longest_recipe: str | None
    published: list[Published]


def beyond(record: Record) -> list[Measured]:
    """The trainings on a card whose allocated or reserved peak the planner did not foretell."""
    missed = []
    for case in record.cases:
        if record.dry_run or case.outcome != "finished" or case.predicted_bytes is None:
            continue
        steps = [peak for name, peak in case.phases.items() if name != "load"]
        allocated = max(peak.allocated for peak in steps)
        reserved = max(peak.reserved for peak in steps)
        foretold = case.predicted_bytes * (1 + FRAGMENTATION)
        if (
            abs(case.predicted_bytes / allocated - 1) > _ALLOCATED
            or abs(foretold / reserved - 1) > _RESERVED
        ):
            missed.append(case)
    return missed


@dataclass
class _Session:
    """Measures cases and keeps them."""

    kit: Kit
    done: list[Measured] = field(default_factory=list)

    def measure(self, case: Case) -> Measured:
        result = measure(case, self.kit)
        self.done.append(result)
        said = f"{result.length} tokens, {' '.join(result.changes)}: {result.outcome}"
        sys.stderr.write(f"{said}, error {result.error}\n")
        return result


def run_session(arguments: argparse.Namespace) -> int:
    """Measure and write the record; 1 when a training failed for another reason than memory."""
    work: Path = arguments.work.absolute()
    dry: bool = arguments.cpu
    size = "toy" if dry else arguments.size
    model = work / f"model-{size}"
    make_model(TOY if dry else QWEN3[size], model)
    cases = _dry_cases() if dry else grid(arguments.recipe, arguments.lengths)
    recipe = measured_recipe(cases[0], model)
    session = _Session(Kit(work, model, template_overhead(recipe, model, work)))
    for case in cases:
        session.measure(case)
    reached = None if dry else _longest_row(session, arguments)
    record = Record(
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        command="python -m benchmarks.memory.measure",
        dry_run=dry,
        size=size,
        card=", ".join(gpu.name for gpu in ask_gpus().gpus) or None,
        cap_mib=None if dry else arguments.cap_mib,
        versions=_versions(),
        cases=session.done,
        longest_tokens=reached,
        longest_recipe=None if dry else arguments.long_recipe,
        published=list(PUBLISHED),
    )
    path = arguments.out / f"memory-{size}-{record.date}.json"
    write_json(path, record.model_dump(mode="json"))
    print(path)
    return 1 if any(result.outcome == "failed" for result in session.done) else 0


def _dry_cases() -> list[Case]:
    return [Case("demo_cpu_lora", 96, 40, ("swift.gradient_checkpointing=true",))]


def _longest_row(session: _Session, arguments: argparse.Namespace) -> int:
    """Rows whose tokens are half supervised, under the cap."""

    def fits(length: int) -> bool:
        case = Case(arguments.long_recipe, length, length // 2, cap_mib=arguments.cap_mib)
        return session.measure(case).outcome == "finished"

    return longest(fits, min(arguments.lengths), arguments.longest, _LENGTH_STEP)


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
