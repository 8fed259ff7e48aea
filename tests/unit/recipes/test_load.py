from __future__ import annotations

from pathlib import Path

import pytest
from support_recipes import WHOLE, make_checkout, write_recipe

from palmswift.errors import InputError
from palmswift.recipes.load import list_recipes, load_checked, load_recipe, resolved_yaml
from palmswift.recipes.source import recipe_names


def test_a_loaded_recipe_says_where_each_key_was_written(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    loaded = load_checked(path, ["swift.seed=1"])
    assert loaded.path == Path(path)
    assert loaded.places["model", "id"] == f"{path}:4"
    assert loaded.places["swift", "seed"] == "--set swift.seed=1"


@pytest.mark.parametrize("name", recipe_names())
def test_the_resolved_recipe_stands_alone_and_is_the_same(tmp_path: Path, name: str) -> None:
    recipe = load_checked(name).recipe
    copy = load_checked(write_recipe(tmp_path, resolved_yaml(recipe), name)).recipe
    assert copy == recipe.model_copy(update={"base": None})


def test_a_plain_load_leaves_the_arguments_to_the_checked_one(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, WHOLE.replace("lora_rank", "lora_rnk"))
    assert load_recipe(path).recipe.swift["lora_rnk"] == 16
    with pytest.raises(InputError, match="1 problem"):
        load_checked(path)


def test_one_broken_recipe_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkout(tmp_path)
    write_recipe(tmp_path / "recipes", "name: [", "broken")
    write_recipe(tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    broken, mine = list_recipes()
    assert (broken.name, broken.recipe) == ("broken", None)
    assert broken.problems
    assert mine.recipe is not None


def test_a_shipped_recipe_is_called_as_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkout(tmp_path)
    write_recipe(tmp_path / "recipes", WHOLE, "other")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="write name: other"):
        load_checked("other")
