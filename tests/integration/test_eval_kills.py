"""A test run that is ended at random points and run again, against one that nobody disturbed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.eval.kills import WAYS, Bench, script
from benchmarks.eval.record import fake_server


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
