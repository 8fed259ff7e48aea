"""Training with MLX (mlx-lm), on a Mac's GPU or slowly on a CPU: the same recipe and clean rows.

ms-swift's own template turns the rows into tokens and says which of them are trained on, so MLX
sees what ms-swift would train on. mlx-lm's trainer does the rest in a process of its own, whose
Python may be another one (PALMSWIFT_MLX_PYTHON).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from palmswift.errors import ChildError, InputError, Problem
from palmswift.files import sha256_of, write_json
from palmswift.launchers.arguments import (
    TrainingPaths,
    source_arguments,
    training_environment,
)
from palmswift.launchers.checkpoint_files import read_document
from palmswift.launchers.diagnosis import diagnose
from palmswift.launchers.render import Rendered, render_command
from palmswift.process import ProcessGroup
from palmswift.recipes.catalogue import load_catalogue
from palmswift.recipes.launch import accumulation_of_one
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.yaml_text import dump

PYTHON_VARIABLE = "PALMSWIFT_MLX_PYTHON"
"""Environment variable that names the Python that has mlx-lm; ours without it."""

FILE = "mlx.yaml"
CHILD = Path(__file__).with_name("mlx_worker.py")

_MODULES = {
    **{name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{name: f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")},
}
"""A linear layer of Qwen3 to its name inside a layer of mlx-lm's model."""


def python() -> str:
    """The Python that has mlx-lm."""
    return os.environ.get(PYTHON_VARIABLE) or sys.executable


def problems() -> Iterator[Problem]:
    """Why MLX cannot train here; empty when it can."""
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('mlx_lm') is None)"
    try:
        found = subprocess.run([python(), "-c", probe], capture_output=True).returncode == 0
    except OSError as error:
        remedy = f"{PYTHON_VARIABLE} has to name a Python that has mlx-lm"
        yield Problem(f"{python()} could not be started: {error.strerror}", remedy=remedy)
        return
    if not found:
        remedy = "pip install 'palmswift[mlx]'"
        if python() != sys.executable:
            remedy = "pip install mlx-lm there"
            remedy += "" if sys.platform == "darwin" else ", and 'mlx[cpu]'"
        yield Problem(f"mlx-lm is not installed in {python()}", remedy=remedy)


def versions() -> dict[str, str]:
    """Versions of mlx and mlx-lm in the Python that has them; empty when they cannot be asked."""
    ask = "import importlib.metadata as m, json; "
    ask += "print(json.dumps({name: m.version(name) for name in ('mlx', 'mlx-lm')}))"
    try:
        done = subprocess.run([python(), "-c", ask], capture_output=True, text=True)
        found = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError):
        return {}
    return {str(name): str(said) for name, said in found.items()}


def token_file(folder: Path, split: str) -> Path:
    """Where the tokens of a split (`train`, `val`) lie."""
    return folder / f"tokens.{split}.jsonl"


def encode(recipe: Recipe, paths: TrainingPaths, folder: Path, log: Path) -> None:
    """Write the tokens of the clean rows into `folder`, by ms-swift's template in a child process.

    Tokens that an earlier attempt made of the same rows with the same arguments are kept.
    `ChildError` when that fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / "tokens.json"
    splits = {"train": paths.train, **({"val": paths.val} if paths.val else {})}
    document = {
        "command": recipe.swift_command,
        "arguments": {**source_arguments(recipe, paths.model), **recipe.swift},
        "splits": {
            name: {
                "rows": str(rows),
                "sha256": sha256_of(rows),
                "tokens": str(token_file(folder, name)),
            }
            for name, rows in splits.items()
        },
    }
    made = folder / "tokens.made.json"
    if read_document(made) == document:
        return
    made.unlink(missing_ok=True)
    write_json(spec, document)
    words = [sys.executable, "-m", "palmswift.launchers.engines.mlx_tokens_worker", str(spec)]
    with ProcessGroup(words, log=log, env=training_environment(recipe, paths.model)) as child:
        exit_code = child.wait()
    if exit_code != 0:
        failure = diagnose(log, exit_code)
        what = f"the rows could not be turned into tokens ({failure.kind}): {failure.cause}"
        raise ChildError(what, remedy=f"{failure.remedy}\n     log: {log}")
    write_json(made, document)


def configuration(recipe: Recipe, paths: TrainingPaths, folder: Path) -> dict[str, Any]:
    """What mlx_worker.py reads: the recipe's settings under mlx-lm's names."""
    s = _Values(recipe)
    document: dict[str, Any] = {
        "model": paths.model,
        "train": str(token_file(folder, "train")),
        "val": str(token_file(folder, "val")) if paths.val else None,
        "output_dir": str(paths.output),
        "resume_from": str(paths.resume_from) if paths.resume_from else None,
        "device": "cpu" if s["use_cpu"] is True else "gpu",
        "dtype": s["torch_dtype"],
        "fine_tune_type": s["tuner_type"],
        "batch_size": s["per_device_train_batch_size"],
        "val_batch_size": s["per_device_eval_batch_size"],
        "grad_accumulation_steps": accumulation_of_one(recipe.swift),
        "epochs": float(s["num_train_epochs"]),
        "max_steps": s["max_steps"],
        "max_seq_length": s["max_length"],
        "grad_checkpoint": s["gradient_checkpointing"] is True,
        "seed": s["seed"],
        "data_seed": s["data_seed"] if s["data_seed"] is not None else s["seed"],
        "optimizer": "adamw",
        "learning_rate": s["learning_rate"] or (1e-4 if s["tuner_type"] == "lora" else 1e-5),
        "schedule": s["lr_scheduler_type"],
        "warmup": s["warmup_steps"] or s["warmup_ratio"] or 0,
        "optimizer_config": {
            "weight_decay": s["weight_decay"],
            "betas": [s["adam_beta1"], s["adam_beta2"]],
            "eps": s["adam_epsilon"],
            # torch's AdamW always corrects; MLX's does when told to.
            "bias_correction": True,
        },
        "max_grad_norm": s["max_grad_norm"],
        "steps_per_report": s["logging_steps"],
        "steps_per_eval": s["eval_steps"] if s["eval_strategy"] != "no" else None,
        "save_every": s["save_steps"] if s["save_strategy"] != "no" else None,
        "save_total_limit": s["save_total_limit"],
        "keep_best": s["load_best_model_at_end"] is True,
    }
    for name in ("eval", "save"):
        if s[f"{name}_strategy"] == "epoch":
            document["steps_per_eval" if name == "eval" else "save_every"] = "epoch"
    if s["tuner_type"] == "lora":
        document["lora_parameters"] = _lora(s)
    return document


class _Values:
    """What the recipe says, else ms-swift's own default."""

    def __init__(self, recipe: Recipe) -> None:
        self._said = recipe.swift
        self._flags = load_catalogue().flags(recipe.swift_command)

    def __getitem__(self, name: str) -> Any:
        if name in self._said:
            return self._said[name]
        return self._flags[name].default if name in self._flags else None


def _lora(s: _Values | Mapping[str, Any]) -> dict[str, Any]:
    """MLX multiplies the update by `scale`, PEFT by alpha / rank (rsLoRA: alpha / sqrt(rank))."""
    rank, alpha = s["lora_rank"], s["lora_alpha"]
    modules = s["target_modules"]
    names = [modules] if isinstance(modules, str) else list(modules or ["all-linear"])
    if unknown := set(names) - {*_MODULES, "all-linear"}:
        raise InputError(
            f"target_modules {', '.join(sorted(unknown))}: MLX's Qwen3 has no such linear layer",
            remedy=f"all-linear, or of {', '.join(_MODULES)}",
        )
    keys = list(_MODULES.values()) if "all-linear" in names else [_MODULES[name] for name in names]
    return {
        "rank": rank,
        "alpha": alpha,
        "scale": alpha / (math.sqrt(rank) if s["use_rslora"] is True else rank),
        "dropout": s["lora_dropout"],
        "use_rslora": s["use_rslora"] is True,
        "keys": keys,
    }


def files(recipe: Recipe, paths: TrainingPaths, folder: Path) -> dict[str, str]:
    """The configuration as YAML."""
    return {FILE: f"# {recipe.name}, for mlx-lm\n{dump(configuration(recipe, paths, folder))}"}


def command(recipe: Recipe, paths: TrainingPaths, folder: Path) -> Rendered:
    """`python mlx_worker.py train --config FILE`."""
    return render_command(
        "mlx",
        {"config": str(folder / FILE)},
        env=training_environment(recipe, paths.model),
        title=f"{recipe.name}: {recipe.summary}",
        program=[python(), str(CHILD)],
    )
