"""A run tells which job trains it, and what the scheduler says of that now."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support_runs import make_run
from support_slurm import NUMBER, make_slurm

from palmswift.files import write_json
from palmswift.launchers.engines import jobs
from palmswift.launchers.engines.jobs import job_of
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.run_list import line_of, list_runs
from palmswift.launchers.run_show import show_lines

WHEN = "2026-01-02T03:04:05Z"


def _submitted(parent: Path, scheduler: str, job: str = str(NUMBER)) -> RunFolder:
    run = make_run(parent, launch={"scheduler": scheduler})
    write_json(
        run.launch / "job.json", {"scheduler": scheduler, "job": job, "submitted": WHEN, "file": ""}
    )
    return run


def _program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def _state(run: RunFolder) -> str:
    job = job_of(run)
    assert job is not None
    return job.state


def test_slurm_says_that_a_job_runs_and_that_it_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _submitted(tmp_path / "runs", "slurm")
    bin_ = make_slurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        (bin_ / "job.pid").write_text(str(process.pid))
        assert _state(run) == "RUNNING"
        process.communicate()
    assert _state(run) == "no longer queued"
    _program(bin_, "sacct", "echo '  TIMEOUT '", monkeypatch)
    assert _state(run) == "TIMEOUT"


def test_list_and_show_tell_the_job_and_ask_only_while_the_run_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path / "bin", "squeue", "echo PENDING", monkeypatch)
    run = _submitted(tmp_path / "runs", "slurm")
    (line,) = list_runs(tmp_path / "runs")
    assert line.model_dump(mode="json")["job"] == {
        **{"scheduler": "slurm", "job": str(NUMBER), "submitted": WHEN, "state": "PENDING"}
    }
    told = dict(show_lines(run, line))
    assert told["job"] == f"slurm {NUMBER}: PENDING (submitted {WHEN})"
    with run.stage("train"):
        pass
    done = line_of(run.path).job
    assert done is not None and str(done) == f"slurm {NUMBER}"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"active": 2}, "active pods: 2"),
        ({}, "active pods: 0"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, "Complete"),
        ({"active": 1, "conditions": [{"type": "Failed", "status": "False"}]}, "active pods: 1"),
        (None, "unknown: kubectl did not answer with a job"),
    ],
)
def test_kubernetes_says_what_became_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any] | None, told: str
) -> None:
    run = _submitted(tmp_path / "runs", "kubernetes", "palmswift-x")
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"status": status}))
    check = '[ "$3" = palmswift-x ] && [ "$5" = default ] || exit 9'
    _program(tmp_path / "bin", "kubectl", f"{check}\ncat {answer}", monkeypatch)
    assert _state(run) == told


@pytest.mark.parametrize("scheduler", ["slurm", "kubernetes"])
def test_what_is_not_known_is_said_to_be_unknown_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    program = {"slurm": "squeue", "kubernetes": "kubectl"}[scheduler]
    run = _submitted(tmp_path / "runs", scheduler)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _state(run) == f"unknown: {program} is not here"
    _program(tmp_path / "bin", program, "echo 'cannot reach it' >&2; exit 1", monkeypatch)
    assert _state(run) == "unknown: cannot reach it"
    monkeypatch.setattr(jobs, "ANSWER_SECONDS", 0.2)
    _program(tmp_path / "bin", program, "exec sleep 20", monkeypatch)
    assert _state(run) == f"unknown: {program} did not answer in 0.2 s"


def test_a_run_that_no_scheduler_has_has_no_job_and_rays_driver_is_the_run(tmp_path: Path) -> None:
    assert job_of(make_run(tmp_path / "a")) is None
    torn = make_run(tmp_path / "b", launch={"scheduler": "slurm"})
    torn.launch.mkdir()
    (torn.launch / "job.json").write_text('{"sched')
    assert job_of(torn) is None
    ray = job_of(make_run(tmp_path / "c", launch={"scheduler": "ray"}))
    assert str(ray) == "ray auto: driven by this run's launcher"
