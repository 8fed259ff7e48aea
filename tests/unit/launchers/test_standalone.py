"""What is exported for ms-swift alone is the recipe's own training."""

from __future__ import annotations

import pytest
import yaml
from support_runs import make_recipe

from palmswift.launchers.engines.arguments import launch_arguments
from palmswift.launchers.standalone import ROWS, standalone, standalone_arguments
from palmswift.recipes.load import load_checked
from palmswift.recipes.recipe import flag_words
from palmswift.recipes.source import recipe_names
from palmswift.recipes.swift_script import read_calls


@pytest.mark.parametrize("name", recipe_names())
def test_the_yaml_and_the_script_of_a_recipe_are_the_same_command(name: str) -> None:
    recipe = load_checked(name).recipe
    (call,) = read_calls(standalone(recipe, "sh").text, name)
    document = yaml.safe_load(standalone(recipe, "swift-yaml").text)  # as swift/cli/main.py does
    environment = document.pop("ENV")
    assert {name: str(value) for name, value in environment.items()} == call.env
    assert call.command == recipe.swift_command
    assert call.problems == []
    assert list(document) == list(call.arguments)
    for argument, value in document.items():
        assert flag_words(value) == flag_words(call.arguments[argument]), argument
    said = {**recipe.swift, **launch_arguments(recipe)}
    assert call.arguments.items() >= {**said, **_split(recipe.data.val_ratio)}.items() or (
        recipe.data.val and call.arguments.items() >= said.items()
    )


def _split(ratio: float) -> dict[str, float]:
    return {"split_dataset_ratio": ratio}


def test_rows_split_and_system_prompt_are_the_recipes_own() -> None:
    recipe = make_recipe(data={"train": ["a.jsonl"], "val_ratio": 0.1, "system": "Be kind."})
    arguments = standalone_arguments(recipe)
    assert arguments["dataset"] == ["a.jsonl"]
    assert arguments["split_dataset_ratio"] == 0.1
    assert arguments["system"] == "Be kind."
    held_out = make_recipe(data={"train": ["a.jsonl"], "val": ["b.jsonl"]})
    assert standalone_arguments(held_out)["val_dataset"] == ["b.jsonl"]


def test_a_recipe_without_rows_says_where_to_put_them() -> None:
    made = standalone(load_checked("qwen3_8b_4bit").recipe, "sh")
    assert f"--dataset {ROWS}" in made.text
    assert any(ROWS in remark for remark in made.remarks)


def test_a_model_that_palmswift_makes_is_told() -> None:
    remarks = standalone(load_checked("demo_cpu").recipe, "sh").remarks
    assert any("demo_cpu is a model that palmswift makes" in remark for remark in remarks)
