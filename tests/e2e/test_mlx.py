"""MLX trains for real (on the CPU) what ms-swift would train on, learns, and can be stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from support_e2e import Finished, Workshop, wait_until_gone
from support_packages import ROOT, make_environment

from palmswift.launchers.engines.mlx_engine import CHILD, PYTHON_VARIABLE, token_file
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.training_log import TrainingLog
from palmswift.recipes.recipe import flag_words

pytestmark = pytest.mark.e2e

STEPS, SAVED = 18, 6
WORDS = {
    **{"model.embedded.hidden_size": 128, "model.embedded.intermediate_size": 256},
    **{"model.embedded.num_attention_heads": 2, "launch.engine": "mlx"},
    **{"swift.tuner_type": "lora", "swift.lora_rank": 8, "swift.lora_dropout": 0.1},
    **{"swift.learning_rate": 0.02, "swift.per_device_train_batch_size": 4},
    **{"swift.gradient_accumulation_steps": 2, "swift.max_steps": STEPS},
    **{"swift.save_steps": SAVED, "swift.eval_steps": SAVED, "swift.logging_steps": 4},
}


class Trained(NamedTuple):
    """A training that was stopped, gone on with, killed, gone on with, and came to its end."""

    python: Path
    run: RunFolder
    stopped: Finished
    finished: Finished


def _steps(run: RunFolder) -> TrainingLog:
    log = TrainingLog(run.training / "logging.jsonl")
    log.poll()
    return log


def _rows(name: str, count: int, folder: Path) -> str:
    lines = (ROOT / "data" / "samples" / "clinic" / name).read_text(encoding="utf-8").splitlines()
    shortest = sorted(lines, key=len)[:count]  # short rows: MLX is slow on a CPU
    (folder / name).write_text("\n".join(shortest) + "\n", encoding="utf-8")
    return str(folder / name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The training, through `launchers/train.py`, with mlx-lm in an environment of its own."""
    folder = tmp_path_factory.mktemp("mlx")
    workshop = Workshop(folder / "workshop")
    python = make_environment(folder / "venv", "mlx-lm", "mlx[cpu]")
    env = {PYTHON_VARIABLE: str(python)}
    words = ["python", "launchers/train.py", "--recipe", "demo_cpu"]
    words += ["--data", _rows("train.jsonl", 24, folder), "--val", _rows("val.jsonl", 8, folder)]
    words += [word for key, value in WORDS.items() for word in ("--set", f"{key}={value}")]
    with workshop.started(*words, env=env) as command:
        run = command.until("a run", lambda: _training_run(workshop))
        command.until("a step", lambda: (run.path / ".control" / "stepping").exists() or None)
        command.signal(signal.SIGINT)
        stopped = command.wait()
    again = ("python", "launchers/train.py", "--resume", run.path.name)
    with workshop.started(*again, env=env) as command:
        later = run.training / f"checkpoint-{2 * SAVED}"
        command.until("a later checkpoint", lambda: later.exists() or None)
        command.signal(signal.SIGKILL)
        command.wait()
        wait_until_gone(command.mark)
    finished = workshop.call(*again, env=env)
    yield Trained(python, RunFolder(run.path), stopped, finished)


def _training_run(workshop: Workshop) -> RunFolder | None:
    if not (workshop.folder / "runs").is_dir():
        return None
    found = sorted((workshop.folder / "runs").glob("demo_cpu-*/launch/mlx.yaml"))
    return RunFolder(found[-1].parents[1]) if found else None


def test_an_adapter_learns(trained: Trained) -> None:
    assert trained.finished.exit_code == 0, trained.finished.said
    log = _steps(trained.run)
    assert log.losses[-1] < log.losses[0] - 0.2
    assert log.eval_losses[-1] < log.eval_losses[0]
    adapter = load_file(trained.run.training / f"checkpoint-{STEPS}" / "adapter_model.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in adapter.values())
    assert all(np.abs(tensor).max() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    assert trained.run.state.stages["train"].state == "done"


def test_a_stop_saves_and_says_how_to_go_on(trained: Trained) -> None:
    assert trained.stopped.exit_code == 130, trained.stopped.said
    assert trained.stopped.left == []
    assert "is saved" in trained.stopped.stderr
    assert "--resume" in trained.stopped.stderr


def test_stopped_and_killed_it_ends_as_one_that_was_not(trained: Trained, tmp_path: Path) -> None:
    # Weights, the optimizer's state and every logged loss, to the last bit.
    said = yaml.safe_load((trained.run.launch / "mlx.yaml").read_text(encoding="utf-8"))
    assert said["resume_from"] is not None
    config = tmp_path / "mlx.yaml"
    config.write_text(yaml.safe_dump({**said, "resume_from": None, "output_dir": str(tmp_path)}))
    _ask(str(trained.python), str(CHILD), "train", "--config", str(config))
    ours, whole = (path / f"checkpoint-{STEPS}" for path in (trained.run.training, tmp_path))
    for name in ("adapter_model.safetensors", "mlx/optimizer.safetensors"):
        one, other = load_file(ours / name), load_file(whole / name)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    losses = TrainingLog(tmp_path / "logging.jsonl")
    losses.poll()
    log = _steps(trained.run)
    assert log.losses == losses.losses
    assert log.eval_losses == losses.eval_losses


def test_mlx_trains_on_the_tokens_of_ms_swift_and_peft_reads_the_adapter(trained: Trained) -> None:
    run = trained.run
    program = str(ROOT / "tests" / "support_mlx.py")
    tokens = str(token_file(run.launch, "val"))
    seen = json.loads(_ask(str(trained.python), program, "mlx", str(CHILD), tokens))
    swift = {"tuner_type": "full", **{k: run.recipe.swift[k] for k in _FOR_THE_DATA}}
    words = [word for name, value in swift.items() for word in (f"--{name}", *flag_words(value))]
    model = str(run.facts("model")["model"])
    adapter = str(run.training / f"checkpoint-{STEPS}")
    rows = str(run.data / "val.jsonl")
    output = _ask(sys.executable, program, "swift", rows, model, adapter, *words)
    asked = json.loads(output.splitlines()[-1])
    assert seen["ids"] == asked["ids"]
    assert seen["labels"] == asked["labels"]
    assert any(label != -100 for label in asked["labels"][0])
    assert _steps(run).eval_losses[-1] == pytest.approx(asked["loss"], abs=1e-4)
    assert asked["loss"] < asked["base_loss"] - 0.2  # of rows that it has not seen


_FOR_THE_DATA = (
    *("model_type", "template", "torch_dtype", "use_cpu", "enable_thinking", "max_length"),
    *("add_non_thinking_prefix", "preserve_thinking", "loss_scale", "split_dataset_ratio"),
    *("load_from_cache_file", "check_model"),
)


def _ask(*words: str) -> str:
    done: subprocess.CompletedProcess[Any] = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return str(done.stdout)
