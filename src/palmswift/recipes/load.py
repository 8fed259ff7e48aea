"""Gives a recipe as a value: resolved over its base and its `--set`, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from palmswift.errors import InputError, Problem
from palmswift.recipes.check import check_recipe
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.shape import shape_problems
from palmswift.recipes.source import RecipeText, read_recipe, recipe_names, shown
from palmswift.recipes.yaml_text import Key, dump


class LoadedRecipe(NamedTuple):
    """A resolved recipe, its file, and where each of its keys was written."""

    recipe: Recipe
    path: Path
    places: Mapping[Key, str]
    """Key to `file:line` of the recipe or its base, or to the `--set` that gave it."""


class Listed(NamedTuple):
    """A shipped recipe, or what is wrong with it."""

    name: str
    recipe: Recipe | None
    problems: list[Problem]


def load_checked(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """The resolved recipe. InputError: no such recipe, or all that is wrong with it, at once."""
    text = read_recipe(name_or_path, overrides)
    return _loaded(text, check_recipe(text))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """The resolved recipe, its keys and types checked, its ms-swift arguments not.

    InputError: no such recipe, broken YAML, or a key or type that `Recipe` refuses, all at once.
    """
    text = read_recipe(name_or_path, overrides)
    return _loaded(text, [*text.problems, *shape_problems(text.values, text.place).values()])


def list_recipes() -> list[Listed]:
    """The shipped recipes by name; one that cannot be loaded comes with its problems."""
    listed = []
    for name in recipe_names():
        try:
            listed.append(Listed(name, load_recipe(name).recipe, []))
        except InputError as error:
            problems = list(error.problems) or [Problem(error.summary, name, error.remedy)]
            listed.append(Listed(name, None, problems))
    return listed


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe as YAML that stands without its base, palmswift's own defaults written out."""
    return dump(recipe.model_dump(mode="json", exclude_none=True, exclude={"base"}))


def _loaded(text: RecipeText, problems: Sequence[Problem]) -> LoadedRecipe:
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"recipe {shown(text.path)}: {count}", problems)
    return LoadedRecipe(Recipe.model_validate(text.values), text.path, text.places)
