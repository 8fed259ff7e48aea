"""Runs one real `swift sft` and reads what its memory log says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from benchmarks.memory.cases import ACCUMULATION, STEPS, Case, measured_recipe
from benchmarks.memory.materials import Overhead, make_rows, row_of
from palmswift.data.template import TemplateJudge, TemplateSpec
from palmswift.files import read_jsonl
from palmswift.launchers.arguments import TrainingPaths
from palmswift.launchers.render import Rendered, render_training
from palmswift.plan.memory import predict
from palmswift.plan.recipe_run import Unpredicted, training_run
from palmswift.process import ProcessGroup
from palmswift.recipes.recipe import Recipe

Outcome = Literal["finished", "out of memory", "failed"]
_OUT_OF_MEMORY = "OutOfMemoryError"
_LONGEST_SECONDS = 3600.0


class LogLine(BaseModel):
    """A line of memory.jsonl; bytes."""

    model_config = ConfigDict(extra="ignore")

    phase: str
    step: int
    allocated: int
    reserved: int
    max_allocated: int
    max_reserved: int
    managed: int
    device: str


class Peak(BaseModel):
    """The most of one phase over all steps, in bytes."""

    allocated: int
    reserved: int
    managed: int


class Measured(BaseModel):
    """What one training came to, beside what the planner said."""

    recipe: str
    changes: list[str]
    length: int
    supervised: int
    cap_mib: int | None
    outcome: Outcome
    device: str | None
    phases: dict[str, Peak]
    predicted_bytes: int | None
    error: float | None
    """The prediction's, relative to the allocated peak of the steps; None without a GPU's peak."""
    tokens_per_s: float | None


class Kit(NamedTuple):
    """Where a measurement works, and with what."""

    work: Path
    model: Path
    overhead: Overhead


def template_overhead(recipe: Recipe, model: Path, work: Path) -> Overhead:
    """What the recipe's template puts around a question and an answer, asked of ms-swift."""
    spec = TemplateSpec(arguments={"model": str(model), **recipe.swift})
    log = work / "template.log"
    with TemplateJudge(spec, "sft", over_length="reject", log=log, samples=0) as judge:
        judge.submit([row_of(1, 1)])
        (verdict,) = judge.finish().verdicts
    return Overhead(verdict.n_tokens - 2, verdict.n_supervised - 1)


def measure(case: Case, kit: Kit) -> Measured:
    """Train three steps of `case`; an out-of-memory error is an outcome, not an exception."""
    recipe = measured_recipe(case, kit.model)
    folder = kit.work / f"case-{len(list(kit.work.glob('case-*'))):03d}"
    paths = TrainingPaths(str(kit.model), folder / "train.jsonl", None, folder / "output")
    rows = STEPS * ACCUMULATION
    make_rows(paths.train, kit.overhead, length=case.length, supervised=case.supervised, rows=rows)
    command = render_training(recipe, paths)
    outcome = _train(command, folder / "train.log")
    return _measured(case, recipe, outcome, paths.output)


def _train(command: Rendered, log: Path) -> Outcome:
    with ProcessGroup(command.argv, log=log, env=command.env) as child:
        try:
            code = child.wait(_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            return "failed"
    if code == 0:
        return "finished"
    said = log.read_text(encoding="utf-8", errors="replace")
    return "out of memory" if _OUT_OF_MEMORY in said else "failed"


def _measured(case: Case, recipe: Recipe, outcome: Outcome, output: Path) -> Measured:
    lines = read_log(output / "memory.jsonl")
    phases = peaks_by_phase(lines)
    run = training_run(recipe, case.length, case.supervised)
    predicted = None if isinstance(run, Unpredicted) else predict(run).bytes
    on_card = bool(lines) and lines[0].device.startswith("cuda") and outcome == "finished"
    highest = max((peak.allocated for name, peak in phases.items() if name != "load"), default=0)
    return Measured(
        recipe=case.recipe,
        changes=list(case.changes),
        length=case.length,
        supervised=case.supervised,
        cap_mib=case.cap_mib,
        outcome=outcome,
        device=lines[0].device if lines else None,
        phases=phases,
        predicted_bytes=predicted,
        error=round(predicted / highest - 1, 4) if predicted and on_card else None,
        tokens_per_s=_speed(output / "logging.jsonl", case),
    )


def read_log(path: Path) -> list[LogLine]:
    """The lines of a memory log; none where the training ended before its first step."""
    if not path.is_file():
        return []
    return [LogLine.model_validate(line) for line in read_jsonl(path)]


def peaks_by_phase(lines: list[LogLine]) -> dict[str, Peak]:
    """The most of each phase over all steps."""
    peaks: dict[str, Peak] = {}
    for line in lines:
        before = peaks.get(line.phase, Peak(allocated=0, reserved=0, managed=0))
        peaks[line.phase] = Peak(
            allocated=max(before.allocated, line.max_allocated),
            reserved=max(before.reserved, line.max_reserved),
            managed=max(before.managed, line.managed),
        )
    return peaks


def _speed(path: Path, case: Case) -> float | None:
    """Tokens a second over the whole training, the first step's warm-up included."""
    if not path.is_file():
        return None
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    seconds = next((row["train_runtime"] for row in records if "train_runtime" in row), None)
    return round(STEPS * ACCUMULATION * case.length / seconds, 1) if seconds else None
