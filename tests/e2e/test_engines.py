"""Several processes make one training: torchrun, two nodes, Slurm, all on the CPU with gloo.

What equal means: a step is of the same rows, since ms-swift deals one shuffled order out to the
processes, and its loss is the mean over the same tokens; so every logged loss is the same but for
the order in which floats are added up. The rows are an even number, for what is over is left out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from support_e2e import Finished, Workshop, marked, wait_until_gone
from support_slurm import NUMBER, make_slurm

from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.training_log import TrainingLog

pytestmark = pytest.mark.e2e

STEPS = 8
CLOSE = 1e-4
"""Greatest difference of a logged loss; measured: 2e-6 (docs/engines.md)."""

TRAIN = (
    *("python", "launchers/train.py", "--recipe", "demo_cpu", "--json"),
    *("--data", "data/samples/clinic/val.jsonl", "--set", "data.val_ratio=0"),
    *("--set", "swift.eval_strategy=no", "--set", "swift.logging_steps=1"),
    *("--set", "swift.per_device_train_batch_size=5"),
    *("--set", "swift.gradient_accumulation_steps=2", "--set", f"swift.save_steps={STEPS}"),
)


def _losses(run: RunFolder) -> list[float]:
    log = TrainingLog(run.training / "logging.jsonl")
    log.poll()
    return log.losses


@pytest.fixture(scope="module")
def alone(workshop: Workshop) -> list[float]:
    """The losses of the training in one process."""
    finished = workshop.call(*TRAIN, "--set", f"swift.max_steps={STEPS}")
    assert finished.exit_code == 0, finished.said
    return _losses(workshop.run_of("demo_cpu"))


class _Trained:
    """A training of two processes that has ended."""

    def __init__(self, run: RunFolder, finished: Finished) -> None:
        self.run = run
        self.finished = finished


@pytest.fixture(scope="module")
def together(workshop: Workshop, alone: list[float]) -> _Trained:
    """Two processes on one machine."""
    words = ("--set", f"swift.max_steps={STEPS}", "--set", "launch.processes=2")
    finished = workshop.call(*TRAIN, *words)
    return _Trained(workshop.run_of("demo_cpu"), finished)


def test_two_processes_have_the_losses_of_one(alone: list[float], together: _Trained) -> None:
    assert together.finished.exit_code == 0, together.finished.said
    assert together.finished.left == []
    losses = _losses(together.run)
    assert len(losses) == len(alone) == STEPS
    assert losses == pytest.approx(alone, abs=CLOSE)
    assert losses[0] - losses[-1] > 0.5
    assert (together.run.training / f"checkpoint-{STEPS}" / "model.safetensors").is_file()


def test_the_run_says_how_the_batch_is_kept_where_they_met_and_what_each_printed(
    together: _Trained,
) -> None:
    told = together.finished.stderr
    assert "2 processes x 5 rows x 1 accumulated: 5 x 2 rows a step, as in one process" in told
    script = (together.run.path / "command.sh").read_text(encoding="utf-8")
    assert "export NPROC_PER_NODE=2" in script
    assert "export MASTER_PORT=" in script
    assert "--ddp_backend gloo" in script
    second = [*together.run.logs.glob("ranks/*/attempt_0/1/*.log")]
    assert any(path.stat().st_size for path in second)


def test_processes_that_would_train_apart_are_stopped_before_the_first_step(
    workshop: Workshop, together: _Trained, tmp_path: Path
) -> None:
    # The command of the run, without what lets the processes find each other on a CPU.
    script = (together.run.path / "command.sh").read_text(encoding="utf-8")
    bare = script.replace("    --use_cpu true \\\n", "").replace("--ddp_backend gloo", "")
    assert bare != script
    bare = bare.replace(str(together.run.training), str(tmp_path / "train"))
    bare = bare.replace("export PET_REDIRECTS=", "export UNUSED=")
    done = subprocess.run(
        ["bash", "-c", bare], capture_output=True, text=True, env=workshop.environment("apart")
    )
    assert done.returncode != 0
    assert "one_training: 2 processes were started and the Trainer counts 1" in done.stderr
    assert not (tmp_path / "train" / "logging.jsonl").exists() or not _steps_of(tmp_path / "train")


def _steps_of(training: Path) -> list[float]:
    log = TrainingLog(training / "logging.jsonl")
    log.poll()
    return log.losses


def test_a_killed_launcher_leaves_no_process_of_torchrun(workshop: Workshop) -> None:
    words = ("--set", "swift.max_steps=5000", "--set", "launch.processes=2")
    with workshop.started(*TRAIN, *words) as command:
        run = command.until("a run", lambda: _started_run(workshop, len(marked(command.mark))))
        command.until("a step", lambda: _steps_of(run.training) or None)
        assert len(marked(command.mark)) >= 4  # the launcher, torchrun and two processes
        command.signal(signal.SIGKILL)
        wait_until_gone(command.mark)


def _started_run(workshop: Workshop, _living: int) -> RunFolder | None:
    run = workshop.run_of("demo_cpu")
    stage = run.state.stages.get("train")
    return run if stage is not None and stage.state == "running" else None


def test_slurm_trains_on_two_nodes_what_was_submitted(
    workshop: Workshop, alone: list[float], tmp_path: Path
) -> None:
    path = os.pathsep.join([str(make_slurm(tmp_path / "bin")), workshop.environment("")["PATH"]])
    words = (
        *("--set", f"swift.max_steps={STEPS}", "--set", "launch.nodes=2"),
        *("--set", "launch.scheduler=slurm"),
    )
    # `env` finds its program by the PATH that it sets.
    submitted = workshop.call("env", f"PATH={path}", *TRAIN, *words, may_stay=True)
    assert submitted.exit_code == 0, submitted.said
    asked = ("env", f"PATH={path}", "python", "launchers/runs.py", "show", "latest", "--json")
    job = workshop.call(*asked).document["job"]
    assert (job["scheduler"], job["job"], job["state"]) == ("slurm", str(NUMBER), "RUNNING")
    wait_until_gone(submitted.mark)
    run = RunFolder(Path(submitted.document["run"]))
    record = json.loads((run.launch / "job.json").read_text(encoding="utf-8"))
    assert record["job"] == submitted.document["job"] == str(NUMBER)
    told = "".join(path.read_text(encoding="utf-8") for path in run.logs.glob("slurm-*.out"))
    assert run.state.stages["train"].state == "done", told
    assert _losses(run) == pytest.approx(alone, abs=CLOSE)
    assert (run.logs / "train.node1.log").is_file()
    second = (run.path / "command.node1.sh").read_text(encoding="utf-8")
    assert "export NODE_RANK=1" in second
    assert "export MASTER_ADDR=127.0.0.1" in second
