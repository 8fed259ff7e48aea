"""A recipe as a file that ms-swift runs without palmswift: its own YAML, or a shell script."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from palmswift.launchers.arguments import TrainingPaths, training_arguments, training_environment
from palmswift.launchers.plugin_files import plugin_arguments
from palmswift.launchers.render import render_command
from palmswift.recipes.recipe import Recipe, SwiftValue
from palmswift.recipes.yaml_text import dump

Form = Literal["swift-yaml", "sh"]
ROWS = "DATA.jsonl"
"""Stands where a recipe names no rows of its own."""


class Standalone(NamedTuple):
    """The file's text, and what its reader has to do or to know first."""

    text: str
    remarks: list[str]


def standalone(recipe: Recipe, form: Form) -> Standalone:
    """The training of `recipe` without a run folder, the data gate and the watching."""
    arguments = standalone_arguments(recipe)
    environment = training_environment(recipe, recipe.model.id)
    title = f"{recipe.name}: {recipe.summary}"
    if form == "sh":
        text = render_command(
            recipe.swift_command, arguments, env=environment, title=title, program=["swift"]
        ).script
    else:
        document: dict[str, Any] = {"ENV": environment, **arguments}
        run = f"swift {recipe.swift_command} {recipe.name}.yaml"
        text = f"# {title}\n# {run}\n{dump(document)}"
    return Standalone(text, _remarks(recipe))


def standalone_arguments(recipe: Recipe) -> dict[str, SwiftValue]:
    """Every argument of the training, with the recipe's own files and split in it."""
    paths = TrainingPaths(
        recipe.model.id,
        Path(ROWS),
        None,
        Path("output") / recipe.name,
        teacher=recipe.teacher.id if recipe.teacher else None,
    )
    arguments = training_arguments(recipe, paths)
    if recipe.plugins:
        # Without those that watch a run: there is no launcher that reads what they write.
        arguments["external_plugins"] = plugin_arguments(recipe.plugins)
    else:
        arguments.pop("external_plugins", None)
    data = recipe.data
    arguments["dataset"] = list(data.train) or [ROWS]
    if data.val:
        arguments["val_dataset"] = list(data.val)
    elif data.val_ratio:
        arguments["split_dataset_ratio"] = data.val_ratio
    if data.system is not None:
        arguments["system"] = data.system
    return arguments


def _remarks(recipe: Recipe) -> list[str]:
    remarks = ["ms-swift reads the rows as they are; `palmswift sanitize` checks them first"]
    if not recipe.data.train:
        remarks.append(f"the recipe names no rows: put your file in place of {ROWS}")
    if recipe.launch.engine != "swift":
        remarks.append(f"launch.engine is {recipe.launch.engine}; this trains by ms-swift instead")
    for model in (recipe.model, *([recipe.teacher] if recipe.teacher else [])):
        if model.source in ("embedded", "recipe"):
            remarks.append(f"{model.id} is a model that palmswift makes: write its folder")
    return remarks
