"""A test run that is ended at random points and run again, against one that nobody disturbed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_disk import small_disk

from benchmarks.eval.kills import QUESTIONS, WAYS, Bench, report_of, script
from benchmarks.eval.record import fake_server
from palmswift.eval.asking.journal import read_journal


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("kills")
    with fake_server(script(0.005), folder) as url:
        yield Bench(folder, url)


@pytest.mark.parametrize("way", [*WAYS, *("kill_at_byte",) * 5])
def test_a_run_that_was_ended_anyhow_goes_on_to_the_report_of_an_undisturbed_one(
    bench: Bench, way: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    trial = bench.trial(way, random.Random(request.node.nodeid), tmp_path / "out")
    log = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")
    assert trial.problems == [], log
    assert "Traceback" not in log


def test_a_test_run_on_a_disk_that_is_really_full_goes_on_once_there_is_room(
    bench: Bench, tmp_path: Path
) -> None:
    command = (sys.executable, Path(__file__).parents[2] / "eval" / "run.py")
    with small_disk(tmp_path / "disk", "24k") as disk:
        words = disk.words(*command, *bench.words(disk.folder / "out"))
        full = subprocess.run(words, capture_output=True, text=True, check=False)
        kept = read_journal(disk.copy("out", tmp_path / "then") / "predictions.jsonl")
        rows = list(kept)
        disk.resize("4m")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        disk.copy("out", tmp_path / "out")
    assert full.returncode == 2, full.stderr
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    assert 0 < len(rows) < QUESTIONS
    assert done.returncode == 0, done.stderr
    assert list(read_journal(tmp_path / "out" / "predictions.jsonl"))[: len(rows)] == rows
    assert report_of(tmp_path / "out") == bench.report
