"""A recipe becomes MLX's settings with the same meaning, or is refused."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
from support_recipes import problems_of
from support_runs import make_recipe

from palmswift.errors import ChildError, InputError
from palmswift.launchers.arguments import TrainingPaths
from palmswift.launchers.engines import mlx_engine
from palmswift.launchers.engines.mlx_engine import command, configuration, files
from palmswift.launchers.record import package_versions
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.yaml_text import parse

PATHS = TrainingPaths("M", Path("/r/train.jsonl"), Path("/r/val.jsonl"), Path("/r/train"))
FOLDER = Path("/r/launch")


def _recipe(**swift: Any) -> Recipe:
    said = {"tuner_type": "lora", "max_length": 512, "seed": 7, **swift}
    return make_recipe(swift=said, launch={"engine": "mlx"})


def test_the_recipes_numbers_are_carried_over() -> None:
    recipe = _recipe(
        per_device_train_batch_size=2,
        gradient_accumulation_steps=8,
        learning_rate=2e-4,
        lr_scheduler_type="linear",
        warmup_ratio=0.1,
        weight_decay=0.0,
        max_grad_norm=0.5,
        num_train_epochs=3,
        gradient_checkpointing=True,
        eval_strategy="steps",
        eval_steps=0.1,
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    config = configuration(recipe, PATHS, FOLDER)
    expected = {
        **{"model": "M", "batch_size": 2, "grad_accumulation_steps": 8, "epochs": 3.0},
        **{"learning_rate": 2e-4, "schedule": "linear", "warmup": 0.1, "max_grad_norm": 0.5},
        **{"grad_checkpoint": True, "steps_per_eval": 0.1, "save_every": "epoch", "seed": 7},
        **{"max_seq_length": 512, "keep_best": True, "output_dir": "/r/train"},
    }
    assert config.items() >= expected.items()
    assert config["optimizer_config"]["weight_decay"] == 0.0
    assert config["optimizer_config"]["bias_correction"] is True


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 32 / math.sqrt(16))])
def test_an_adapter_is_scaled_as_peft_scales_it(rslora: bool, scale: float) -> None:
    recipe = _recipe(lora_rank=16, lora_alpha=32, lora_dropout=0.0, use_rslora=rslora)
    lora = configuration(recipe, PATHS, FOLDER)["lora_parameters"]
    assert lora["scale"] == pytest.approx(scale)
    assert len(lora["keys"]) == 7  # all-linear


def test_an_adapter_stands_on_the_layers_that_the_recipe_names() -> None:
    recipe = _recipe(target_modules=["q_proj", "down_proj"])
    lora = configuration(recipe, PATHS, FOLDER)["lora_parameters"]
    assert lora["keys"] == ["self_attn.q_proj", "mlp.down_proj"]
    with pytest.raises(InputError, match="lm_head"):
        configuration(_recipe(target_modules=["lm_head"]), PATHS, FOLDER)


def test_without_evaluation_there_is_none_and_the_file_is_yaml() -> None:
    recipe = _recipe(eval_strategy="no")
    text = files(recipe, PATHS._replace(val=None), FOLDER)["mlx.yaml"]
    document = parse(text, "mlx.yaml").value
    assert document["steps_per_eval"] is None
    assert document["val"] is None


def test_a_stopped_training_goes_on_from_its_checkpoint() -> None:
    config = configuration(_recipe(), PATHS._replace(resume_from=Path("/r/c-2")), FOLDER)
    assert config["resume_from"] == "/r/c-2"
    assert configuration(_recipe(), PATHS, FOLDER)["resume_from"] is None


def test_tokens_are_made_again_only_when_rows_or_settings_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\ncat {tmp_path}/said\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    paths = PATHS._replace(train=tmp_path / "train.jsonl", val=None)
    paths.train.write_text("{}")

    def encoded(recipe: Recipe) -> int:
        mlx_engine.encode(recipe, paths, tmp_path / "launch", tmp_path / "log")
        return (tmp_path / "calls").read_text().count("mlx_tokens_worker")

    with pytest.raises(ChildError):  # `said` is missing: a failed attempt leaves nothing behind
        encoded(_recipe())
    (tmp_path / "said").touch()
    assert encoded(_recipe()) == 2
    assert encoded(_recipe()) == 2
    assert encoded(_recipe(max_length=64)) == 3
    paths.train.write_text('{"other": 1}')
    assert encoded(_recipe(max_length=64)) == 4


def test_the_python_that_has_mlx_may_be_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALMSWIFT_MLX_PYTHON", "/mac/python")
    words = command(_recipe(), PATHS, FOLDER).argv
    assert words[0] == "/mac/python"
    assert words[2:] == ["train", "--config", "/r/launch/mlx.yaml"]
    (problem,) = mlx_engine.problems()
    assert "could not be started" in problem.what
    monkeypatch.setenv("PALMSWIFT_MLX_PYTHON", sys.executable)
    assert all("mlx-lm is not installed" in problem.what for problem in mlx_engine.problems())


def test_a_run_records_the_versions_of_the_python_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"mlx": "1.2", "mlx-lm": "3.4"}\'\n')
    python.chmod(0o755)
    monkeypatch.setenv("PALMSWIFT_MLX_PYTHON", str(python))
    assert package_versions(_recipe()).items() >= {"mlx": "1.2", "mlx-lm": "3.4"}.items()
    monkeypatch.setenv("PALMSWIFT_MLX_PYTHON", str(tmp_path / "none"))
    assert "python" in package_versions(_recipe())


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("swift.optim=adamw_8bit", "no optimizer like adamw_8bit"),
        ("swift.use_liger_kernel=true", "Liger"),
        ("swift.quant_method=bnb", "bitsandbytes"),
        ("swift.tuner_type=adalora", "trains lora and full"),
        ("swift.lr_scheduler_type=polynomial", "no schedule like polynomial"),
        ("swift.loss_scale=react", "weighs them"),
        ("swift.packing=true", "packing has no counterpart"),
        ("swift.neftune_noise_alpha=5", "neftune_noise_alpha has no counterpart"),
        ("model.source=modelscope", "from Hugging Face"),
        ("task=dpo", "not dpo"),
    ],
)
def test_what_mlx_has_no_counterpart_for_is_refused(override: str, told: str) -> None:
    problems = problems_of("qwen3_4b_mlx", override)
    assert any(told in problem.what for problem in problems), problems
