"""A job is what its scheduler reads, and says what was asked for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_runs import make_recipe

from palmswift.command import Console
from palmswift.errors import ChildError
from palmswift.launchers.engines.jobs import submitted_job
from palmswift.launchers.engines.submit import job_files, job_name, submit
from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.recipe import Recipe

GPU = {"gpu_mib": 8188}


def _recipe(launch: dict[str, Any]) -> Recipe:
    return make_recipe(launch=launch, budget=GPU)


def _slurm(tmp_path: Path, **slurm: Any) -> str:
    launch = {"scheduler": "slurm", "nodes": 2, "processes": 4, "slurm": slurm}
    return job_files(_recipe(launch), tmp_path)["job.slurm"]


def test_a_slurm_job_asks_for_what_the_launch_needs(tmp_path: Path) -> None:
    text = _slurm(tmp_path, partition="gpu", time="02:00:00", options=["--constraint=a100"])
    said = set(re.findall(r"^#SBATCH (.*)$", text, re.M))
    assert said >= {
        *("--nodes=2", "--ntasks-per-node=1", "--gres=gpu:4", "--cpus-per-task=16"),
        *("--partition=gpu", "--time=02:00:00", "--constraint=a100", "--requeue"),
        "--signal=TERM@120",
    }


@pytest.mark.parametrize("requeue", [True, False])
def test_a_slurm_job_is_a_shell_script_whatever_its_paths_are(
    tmp_path: Path, requeue: bool
) -> None:
    folder = tmp_path / "it's $HOME here"
    text = _slurm(folder, requeue=requeue, setup=["module load cuda"])
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("scontrol requeue" in text) == requeue
    assert "\nmodule load cuda\n" in text


def test_a_kubernetes_job_runs_a_pod_for_each_node_which_find_the_first(tmp_path: Path) -> None:
    kubernetes = {"image": "me/palmswift:1", "claim": "disk", "mount": "/work"}
    launch = {"scheduler": "kubernetes", "nodes": 3, "processes": 2, "kubernetes": kubernetes}
    text = job_files(_recipe(launch), tmp_path / "My_run-1")["job.yaml"]
    service, job = yaml.safe_load_all(text)
    name = service["metadata"]["name"]
    assert name == job["metadata"]["name"] == "palmswift-my-run-1"
    assert service["spec"]["clusterIP"] == "None"
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["subdomain"] == name
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    master = {entry["name"]: entry["value"] for entry in container["env"]}["PALMSWIFT_MASTER"]
    assert master == f"{name}-0.{name}:29500"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "disk"


@pytest.mark.parametrize("run", ["Qwen3_8b.4bit-20260101-120000", "-" * 9 + "x", "n" * 200])
def test_a_jobs_name_is_one_that_kubernetes_takes(run: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job_name(run))
    assert len(job_name(run)) <= 52


def _program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def _run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(_recipe({"scheduler": "slurm"}), parent=tmp_path / "runs")


def test_a_submitted_jobs_number_is_kept_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path / "bin", "sbatch", 'echo "77;cluster"', monkeypatch)
    run = _run(tmp_path)
    document = submit(run, run.launch / "job.slurm", Console(json_output=True))
    record = submitted_job(run)
    assert record is not None
    assert record["job"] == document["job"] == "77"


def test_a_scheduler_that_refuses_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path / "bin", "sbatch", "echo 'invalid partition' >&2; exit 1", monkeypatch)
    run = _run(tmp_path)
    with pytest.raises(ChildError, match="sbatch refused the job: invalid partition"):
        submit(run, run.launch / "job.slurm", Console(json_output=True))
    assert submitted_job(run) is None
