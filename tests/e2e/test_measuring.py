"""The measuring kit goes its whole way with the real `swift sft`, on a toy model without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory.session import Record

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]


def test_one_command_makes_model_and_rows_trains_and_writes_a_record(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "records"
    words = ["-m", "benchmarks.memory.measure", "--cpu", "--work", str(work), "--out", str(out)]
    finished = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    (path,) = out.glob("memory-toy-*.json")
    record = Record.model_validate(json.loads(path.read_text(encoding="utf-8")))
    assert record.dry_run
    (case,) = record.cases
    assert (case.outcome, case.device) == ("finished", "cpu")
    assert {"load", "backward", "optimizer_step"} <= case.phases.keys()
    assert case.tokens_per_s is not None
    assert case.error is None  # of a process's memory the planner says nothing
    (log,) = work.glob("case-*/train.log")
    assert f"min={case.length}.000000, max={case.length}.000000, size=6" in log.read_text()
