"""The scheduler's job that trains a run, and what the scheduler says of it now."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from palmswift.launchers.checkpoint_files import read_document
from palmswift.launchers.run_folder import RunFolder

RECORD = "job.json"
"""In a run's launch/: what was submitted."""

ANSWER_SECONDS = 2.0
"""How long a scheduler may take to answer; a list of runs is not to wait for a dead one."""


class Job(BaseModel):
    """A job as it was submitted, and its state."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheduler: Literal["slurm", "kubernetes", "ray"]
    job: str
    """Slurm's number, the Kubernetes job's name, or the address of the Ray cluster."""
    submitted: str = ""
    """UTC, ISO 8601."""
    state: str = ""
    """In the scheduler's own words (PENDING, RUNNING, Complete...), or `unknown: ` and why.

    Empty where it was not asked for."""

    def __str__(self) -> str:
        return f"{self.scheduler} {self.job}" + (f": {self.state}" if self.state else "")


def submitted_job(run: RunFolder) -> dict[str, Any] | None:
    """What launch/job.json holds; None when the run was not submitted."""
    return read_document(run.launch / RECORD)


def job_of(run: RunFolder, *, ask: bool = True) -> Job | None:
    """The run's job; None when no scheduler has it. Without `ask` its state is not asked for.

    A Ray cluster has no job of ours in it: the launcher is the driver, and the run's state is its.
    """
    launch = run.recipe.launch
    if launch.scheduler == "ray":
        return Job(scheduler="ray", job=launch.ray.address, state="driven by this run's launcher")
    record = submitted_job(run)
    if record is None or record.get("scheduler") not in ("slurm", "kubernetes"):
        return None
    job = str(record.get("job", ""))
    if not ask:
        state = ""
    elif record["scheduler"] == "slurm":
        state = _slurm_state(job)
    else:
        state = _kubernetes_state(job, launch.kubernetes.namespace)
    submitted = str(record.get("submitted", ""))
    return Job(scheduler=record["scheduler"], job=job, submitted=submitted, state=state)


def _slurm_state(job: str) -> str:
    """`squeue` knows jobs that wait, run, or have ended a few minutes ago."""
    said, fault = _asked("squeue", "--noheader", f"--jobs={job}", "--format=%T")
    if "Invalid job id" in fault or not (said or fault):
        # Accounting is not kept everywhere; where it is, it knows how the job ended.
        ended, _ = _asked("sacct", "--noheader", "-X", f"--jobs={job}", "--format=State")
        return ended.split("\n")[0].strip() or "no longer queued"
    return f"unknown: {fault}" if fault else said.split("\n")[0].strip()


def _kubernetes_state(job: str, namespace: str) -> str:
    """The job's last condition (Complete, Failed...), or how many of its pods are at work."""
    said, fault = _asked("kubectl", "get", "job", job, "--namespace", namespace, "--output=json")
    if fault:
        return f"unknown: {fault}"
    try:
        status = json.loads(said).get("status", {})
        true = [each["type"] for each in status.get("conditions", []) if each["status"] == "True"]
    except (ValueError, AttributeError, KeyError, TypeError):
        return "unknown: kubectl did not answer with a job"
    return str(true[-1]) if true else f"active pods: {status.get('active', 0)}"


def _asked(*words: str) -> tuple[str, str]:
    """What a scheduler's program prints, or the fault that kept it from that."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=ANSWER_SECONDS
        )
    except FileNotFoundError:
        return "", f"{words[0]} is not here"
    except OSError as error:
        return "", f"{words[0]} could not be started: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "", f"{words[0]} did not answer in {ANSWER_SECONDS:g} s"
    if done.returncode != 0:
        fault = (done.stderr or done.stdout).strip().split("\n")[0]
        return "", fault or f"{words[0]} failed (exit code {done.returncode})"
    return done.stdout.strip(), ""
