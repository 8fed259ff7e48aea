"""Hands a prepared run to Slurm or Kubernetes: the job's file, its submission, what came of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from palmswift.command import Console
from palmswift.errors import ChildError
from palmswift.files import write_json, write_text
from palmswift.launchers.engines.jobs import RECORD
from palmswift.launchers.render import render_text
from palmswift.launchers.run_folder import RunFolder, utc_now
from palmswift.launchers.training import prepare_stages
from palmswift.paths import work_root
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.source import shown

CORES_PER_PROCESS = 4
"""CPU cores of a training process: its own, its loading process, and two for the libraries."""

FILES = {"slurm": "job.slurm", "kubernetes": "job.yaml"}


def job_files(recipe: Recipe, folder: Path) -> dict[str, str]:
    """Name to text of the job that trains the run in `folder`; empty without a scheduler."""
    scheduler = recipe.launch.scheduler
    if scheduler == "slurm":
        return {FILES[scheduler]: _slurm_job(recipe, folder)}
    if scheduler == "kubernetes":
        return {FILES[scheduler]: _kubernetes_job(recipe, folder)}
    return {}


def _slurm_job(recipe: Recipe, folder: Path) -> str:
    launch, slurm = recipe.launch, recipe.launch.slurm
    return render_text(
        "job.slurm.j2",
        name=recipe.name,
        launch=launch,
        slurm=slurm,
        gres=slurm.gres or (f"gpu:{launch.processes}" if recipe.needs_gpu else None),
        cpus=slurm.cpus_per_task or CORES_PER_PROCESS * launch.processes,
        python=sys.executable,
        project=str(work_root()),
        run=str(folder),
        logs=str(folder / "logs"),
    )


def _kubernetes_job(recipe: Recipe, folder: Path) -> str:
    launch, kubernetes = recipe.launch, recipe.launch.kubernetes
    project = work_root()
    mount = kubernetes.mount or str(project)
    inside = Path(mount) / folder.relative_to(project) if folder.is_relative_to(project) else folder
    resource = kubernetes.resource or (
        "huawei.com/Ascend910" if launch.device == "npu" else "nvidia.com/gpu"
    )
    return render_text(
        "job.yaml.j2",
        name=job_name(folder.name),
        recipe=recipe,
        launch=launch,
        kubernetes=kubernetes,
        mount=mount,
        run=str(inside),
        resource=resource if recipe.needs_gpu else None,
    )


def job_name(run: str) -> str:
    """A name that Kubernetes takes: small letters, digits and `-`, with room for a pod's number."""
    name = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    return f"palmswift-{name}"[:52].rstrip("-")


def prepare_job(run: RunFolder, console: Console) -> Path:
    """Model and data here, where files are fetched and read; the job's file in the run folder."""
    prepare_stages(run, console)
    run.logs.mkdir(parents=True, exist_ok=True)
    for name, text in job_files(run.recipe, run.path).items():
        write_text(run.launch / name, text)
    return run.launch / FILES[run.recipe.launch.scheduler]


def submit(run: RunFolder, job: Path, console: Console) -> dict[str, Any]:
    """Ask the scheduler to train the run; what stands in launch/job.json then.

    Call it without the run's lock, for the job may begin at once. `ChildError` when the scheduler
    refuses.
    """
    scheduler = run.recipe.launch.scheduler
    record: dict[str, Any] = {"scheduler": scheduler, "file": job.name, "submitted": utc_now()}
    if scheduler == "slurm":
        number = _asked(["sbatch", "--parsable", str(job)]).split(";")[0].strip()
        record["job"] = number
        watch = f"squeue -j {number}; tail -f {shown(run.logs)}/slurm-{number}*.out"
        cancel = f"scancel {number}"
    else:
        namespace = run.recipe.launch.kubernetes.namespace
        _asked(["kubectl", "apply", "-n", namespace, "-f", str(job)])
        record["job"] = job_name(run.path.name)
        where = f"-n {namespace} job/{record['job']}"
        watch, cancel = f"kubectl logs -f {where}", f"kubectl delete {where}"
    write_json(run.launch / RECORD, record)
    console.say(f"job      {record['job']} ({scheduler}), from {shown(job)}")
    console.say(f"watch    {watch}")
    console.say(f"cancel   {cancel}")
    console.say(f"state    {shown(run.path)}/run.json tells how it ends")
    return {"run": str(run.path), **record, "stages": run.stages_document()}


def _asked(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise ChildError(f"{words[0]} could not be started: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise ChildError(
            f"{words[0]} refused the job: {said}", remedy=f"the job is {words[-1]}: mend launch:"
        )
    return done.stdout
