"""Compare the planner with the simulator on the real shapes of Qwen3, and keep every difference.

python -m benchmarks.memory.check_planner

It needs no GPU and takes about ten minutes. The record is
benchmarks/records/memory-simulator-DATE.json; the exit code is 1 when a difference is above 1 %.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel

from benchmarks.memory.simulator import predicted, simulate
from palmswift.files import write_json
from palmswift.plan.memory import MIB, TrainingRun, predict
from palmswift.plan.shapes import QWEN3

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 0.01
_LEVERS = {"embedding_on_cpu": True, "checkpoint_offload": True, "tiled_mlp": 1024}


class Case(NamedTuple):
    """One training, by the name of its model."""

    model: str
    run: TrainingRun


class Row(BaseModel):
    """What one case came to, in MiB; `error` is the planner's, relative to the simulator."""

    model: str
    settings: dict[str, str | int | float | bool | None]
    simulated: dict[str, float]
    planned: dict[str, float]
    error: float


class Record(BaseModel):
    """The whole comparison."""

    benchmark: Literal["memory-simulator"] = "memory-simulator"
    date: str
    what: str = "peak of allocated GPU memory of one step: closed form against simulation; no GPU"
    command: str = "python -m benchmarks.memory.check_planner"
    versions: dict[str, str]
    largest_error: float
    rows: list[Row]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare all cases and write the record; 1 when one differs by more than `LIMIT`."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", action="append", choices=list(QWEN3), help="only these sizes")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    arguments = parser.parse_args(argv)
    wanted = arguments.model or list(QWEN3)
    cases = [case for case in grid() if case.model in wanted]
    rows = []
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for row in pool.map(compare, cases):
            rows.append(row)
            sys.stderr.write(f"{row.error:+.3%}  {row.model}  {row.settings}\n")
    record = Record(
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        versions={name: version(name) for name in ("torch", "transformers", "peft")},
        largest_error=max((abs(row.error) for row in rows), default=0.0),
        rows=rows,
    )
    path = arguments.out / f"memory-simulator-{record.date}.json"
    write_json(path, record.model_dump(mode="json"))
    print(f"{len(rows)} cases, largest difference {record.largest_error:.2%}: {path}")
    return 0 if record.largest_error <= LIMIT else 1


def grid() -> Iterator[Case]:
    """Sizes, lengths, ranks and settings that users combine; the larger sizes are in NF4 only."""
    for model, liger, length in itertools.product(QWEN3, (False, True), (512, 2048)):
        plain = TrainingRun(QWEN3[model], 16, length, liger=liger)
        yield Case(model, plain)
        yield Case(model, replace(plain, rank=64, dropout=0.0, optimizer="adamw_8bit"))
        bf16 = replace(plain, rank=8, dropout=0.0, lora_fp32=False, supervised=length // 4)
        yield Case(model, bf16)
    for model, liger in itertools.product(("0.6B", "1.7B"), (False, True)):
        unquantised = TrainingRun(QWEN3[model], 16, 1024, liger=liger, quantized=False)
        yield Case(model, unquantised)
        yield Case(model, replace(unquantised, dropout=0.0, accumulation=1))
    for fp32, liger in itertools.product((False, True), (False, True)):
        full = TrainingRun(QWEN3["0.6B"], 0, 1024, liger=liger, quantized=False, dropout=0.0)
        yield Case("0.6B", replace(full, full=True, weights_fp32=fp32))
    for lever, setting in _LEVERS.items():
        long = TrainingRun(QWEN3["8B"], 32, 4096, liger=True, dropout=0.0, optimizer="adamw_8bit")
        yield Case("8B", replace(long, **{lever: setting}))  # type: ignore[arg-type]  # its fields


def compare(case: Case) -> Row:
    """Simulate and plan one case."""
    simulated = simulate(case.run)
    return Row(
        model=case.model,
        settings=_settings(case.run),
        simulated={name: round(size / MIB, 1) for name, size in simulated.items()},
        planned={name: round(size / MIB, 1) for name, size in predicted(predict(case.run)).items()},
        error=round(predict(case.run).bytes / max(simulated.values()) - 1, 5),
    )


def _settings(run: TrainingRun) -> dict[str, str | int | float | bool | None]:
    return {
        "rank": run.rank,
        "length": run.length,
        "supervised": run.supervised,
        "optimizer": run.optimizer,
        "liger": run.liger,
        "dropout": run.dropout,
        "lora_fp32": run.lora_fp32,
        "accumulation": run.accumulation,
        "quantized": run.quantized,
        "full": run.full,
        "weights_fp32": run.weights_fp32,
        "embedding_on_cpu": run.embedding_on_cpu,
        "checkpoint_offload": run.checkpoint_offload,
        "tiled_mlp": run.tiled_mlp,
    }


if __name__ == "__main__":
    raise SystemExit(main())
