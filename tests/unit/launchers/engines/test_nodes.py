"""A further node leaves the results to node 0; a job is prepared, and its nodes share the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_runs import StandIn, prepare_project, write_project_recipe

from palmswift.launchers.engines.node import main as node_main
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.train import main
from palmswift.pipeline import main as pipeline

NODES = {"nodes": 2, "master": "127.0.0.1:29500"}
SWIFT = {
    **{"tuner_type": "lora", "enable_thinking": False, "eval_strategy": "steps"},
    **{"load_from_cache_file": False, "loss_scale": "default", "max_length": 128, "seed": 42},
    **{"split_dataset_ratio": 0, "truncation_strategy": "delete"},
    "gradient_accumulation_steps": 2,
}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = prepare_project(tmp_path, monkeypatch)
    write_project_recipe(tmp_path, swift=SWIFT, launch=NODES)
    return stand_in


def _run(tmp_path: Path) -> RunFolder:
    (path,) = (tmp_path / "runs").iterdir()
    return RunFolder(path)


def test_the_second_node_ends_without_a_result_of_its_own(
    tmp_path: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--recipe", "mine", "--set", "launch.node_rank=1"]) == 0
    assert "node 0 has the result" in capsys.readouterr().out
    run = _run(tmp_path)
    assert run.is_done("train")
    assert run.facts("train") == {"node_rank": 1}
    script = (run.path / "command.node1.sh").read_text(encoding="utf-8")
    assert "export NODE_RANK=1" in script
    (call,) = stand_in.calls
    assert call["gradient_accumulation_steps"] == ["1"]


def test_a_second_node_that_fails_says_why_and_where(
    tmp_path: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.set("oom")
    assert main(["--recipe", "mine", "--set", "launch.node_rank=1"]) == 3
    told = capsys.readouterr().err
    assert "node 1 failed (out_of_memory)" in told
    assert "node 0 may say more" in told
    assert _run(tmp_path).state.stages["train"].state == "failed"


def test_nodes_without_a_meeting_point_are_refused_before_anything_is_written(
    tmp_path: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--recipe", "mine", "--set", "launch.master=null"]) == 2
    assert "meeting point" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_job_is_prepared_where_it_is_asked_for_and_its_nodes_share_the_run(
    tmp_path: Path,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sbatch").write_text("#!/bin/sh\necho 7\n")
    (tools / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    assert main(["--recipe", "mine", "--set", "launch.scheduler=slurm"]) == 0
    assert "squeue -j 7" in capsys.readouterr().out
    run = _run(tmp_path)
    assert run.is_done("data")
    assert "train" not in run.state.stages
    assert stand_in.calls == []
    assert json.loads((run.launch / "job.json").read_text())["job"] == "7"

    monkeypatch.setenv("PALMSWIFT_MASTER", "127.0.0.1:20007")
    for number in ("1", "0"):
        monkeypatch.setenv("PALMSWIFT_NODE_RANK", number)
        assert node_main([str(run.path)]) == 0, capsys.readouterr().err
    done = _run(tmp_path)
    assert done.is_done("train")
    assert done.facts("train")["steps"] == 4
    assert (done.logs / "train.node1.log").is_file()


def test_the_pipeline_does_not_test_what_is_trained_elsewhere(
    tmp_path: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline(["--recipe", "mine", "--set", "launch.node_rank=1"]) == 2
    assert "is trained elsewhere" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_node_outside_a_job_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PALMSWIFT_NODE_RANK", "SLURM_NODEID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    assert node_main([str(tmp_path)]) == 2
    assert "part of a job" in capsys.readouterr().err
