"""Which arguments and environment a recipe becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_runs import make_recipe

from palmswift.launchers.arguments import (
    OFFLINE,
    TrainingPaths,
    child_environment,
    serving_arguments,
    source_arguments,
    training_arguments,
    training_environment,
)
from palmswift.recipes.recipe import ModelSource, Task

PATHS = TrainingPaths("M", Path("/r/train.jsonl"), Path("/r/val.jsonl"), Path("/r/train"))


def test_paths_come_from_the_run_and_the_rest_from_the_recipe_in_its_order() -> None:
    arguments = training_arguments(make_recipe(), PATHS)
    assert list(arguments) == [
        *("model", "use_hf", "dataset", "val_dataset", "output_dir", "add_version"),
        *("logging_nan_inf_filter", "external_plugins"),
        *("tuner_type", "eval_strategy", "learning_rate"),
    ]
    assert arguments["dataset"] == ["/r/train.jsonl"]
    assert arguments["output_dir"] == "/r/train"


def test_without_validation_rows_there_is_no_validation_set() -> None:
    assert "val_dataset" not in training_arguments(make_recipe(), PATHS._replace(val=None))


def test_a_resumed_training_names_its_checkpoint() -> None:
    arguments = training_arguments(make_recipe(), PATHS._replace(resume_from=Path("/r/c-2")))
    assert arguments["resume_from_checkpoint"] == "/r/c-2"


def test_preference_tasks_are_a_type_of_rlhf() -> None:
    recipe = make_recipe(task="dpo")
    assert recipe.swift_command == "rlhf"
    assert training_arguments(recipe, PATHS)["rlhf_type"] == "dpo"


def test_plugins_are_given_by_their_whole_path() -> None:
    plugins = training_arguments(make_recipe(plugins=["a/p.py"]), PATHS)["external_plugins"]
    assert isinstance(plugins, list)
    assert {Path(str(plugin)).is_absolute() for plugin in plugins} == {True}
    assert Path(str(plugins[-1])).name == "p.py"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"source": "modelscope"}, {"use_hf": False}),
        ({"source": "huggingface", "revision": "v1"}, {"use_hf": True, "model_revision": "v1"}),
        ({"source": "local"}, {}),
    ],
)
def test_the_hub_is_said_and_never_left_to_a_default(
    source: dict[str, str], expected: dict[str, object]
) -> None:
    recipe = make_recipe(model={"id": "Q/M", **source})
    assert source_arguments(recipe, "Q/M") == {"model": "Q/M", **expected}


def test_what_decides_an_answer_is_served_as_it_was_trained() -> None:
    recipe = make_recipe(
        swift={"enable_thinking": False, "template": "qwen3", "learning_rate": 1.0},
        deploy={"swift": {"max_batch_size": 4, "template": "chatml"}},
    )
    assert serving_arguments(recipe) == {
        "enable_thinking": False,
        "template": "chatml",
        "max_batch_size": 4,
    }


def test_a_cpu_recipe_sees_no_gpu_and_a_gpu_recipe_sees_what_there_is() -> None:
    assert child_environment(make_recipe(), "Q/M")["CUDA_VISIBLE_DEVICES"] == ""
    gpu = make_recipe(budget={"gpu_mib": 8188})
    assert "CUDA_VISIBLE_DEVICES" not in child_environment(gpu, "Q/M")


def test_a_model_folder_needs_no_hub(tmp_path: Path) -> None:
    assert OFFLINE.items() <= child_environment(make_recipe(), str(tmp_path)).items()
    assert not OFFLINE.keys() & child_environment(make_recipe(), "Q/M").keys()


def test_the_recipes_environment_has_the_last_word() -> None:
    recipe = make_recipe(env={"PYTHONUNBUFFERED": "0"}, launch={"processes": 2})
    environment = training_environment(recipe, "Q/M")
    assert environment["PYTHONUNBUFFERED"] == "0"
    assert environment["NPROC_PER_NODE"] == "2"
    assert "NPROC_PER_NODE" not in child_environment(recipe, "Q/M")


def test_a_teacher_is_named_with_its_revision() -> None:
    teacher = ModelSource(id="T", revision="v2")
    recipe = make_recipe(task="gkd").model_copy(update={"teacher": teacher})
    paths = TrainingPaths("M", Path("t"), None, Path("o"), teacher="models/T")
    arguments = training_arguments(recipe, paths)
    assert arguments["rlhf_type"] == "gkd"
    assert arguments["teacher_model"] == "models/T"
    assert arguments["teacher_model_revision"] == "v2"
    assert "teacher_model_type" not in arguments


def test_a_teacher_is_of_the_models_type_unless_told_otherwise() -> None:
    changes = {"teacher": ModelSource(id="T")}
    paths = TrainingPaths("M", Path("t"), None, Path("o"), teacher="models/T")
    for swift, kind in (
        ({"model_type": "qwen3"}, "qwen3"),
        ({"model_type": "qwen3", "teacher_model_type": "other"}, "other"),
    ):
        recipe = make_recipe(task="gkd", swift=swift).model_copy(update=changes)
        assert training_arguments(recipe, paths)["teacher_model_type"] == kind


@pytest.mark.parametrize("task", ["dpo", "cpo", "orpo", "simpo", "kto", "grpo", "gkd"])
def test_a_method_is_an_rlhf_type_of_ms_swift(task: Task) -> None:
    recipe = make_recipe(task=task)
    arguments = training_arguments(recipe, TrainingPaths("M", Path("t"), None, Path("o")))
    assert recipe.swift_command == "rlhf"
    assert arguments["rlhf_type"] == task
    assert "teacher_model" not in arguments
