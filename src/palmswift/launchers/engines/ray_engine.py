"""Training in a Ray cluster by ms-swift's own entry: its YAML, with `use_ray` and `device_groups`.

ms-swift's driver asks the cluster for one worker a process and calls them (swift/ray_utils). The
driver runs on a node of the cluster; `launch.ray.address` says which cluster that is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palmswift.launchers.arguments import (
    TrainingPaths,
    training_arguments,
    training_environment,
)
from palmswift.launchers.render import Rendered, render_command
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.yaml_text import dump

FILE = "ray.yaml"


def device_groups(recipe: Recipe) -> dict[str, Any]:
    """The one group of workers that ms-swift's trainers belong to (its name for them: default)."""
    launch = recipe.launch
    device = "NPU" if launch.device == "npu" else "GPU"
    group = {"device": device, "ranks": launch.world, "workers": ["default"]}
    return {"nproc_per_node": launch.processes, "default": group}


def files(recipe: Recipe, paths: TrainingPaths) -> dict[str, str]:
    """ms-swift's YAML: every argument of the training, and the workers that it asks for."""
    arguments: dict[str, Any] = dict(training_arguments(recipe, paths))
    arguments |= {"use_ray": True, "device_groups": device_groups(recipe)}
    return {FILE: f"# {recipe.name}: swift {recipe.swift_command} {FILE}\n{dump(arguments)}"}


def command(recipe: Recipe, paths: TrainingPaths, folder: Path) -> Rendered:
    """`swift sft FILE` with the cluster's address."""
    env = training_environment(recipe, paths.model)
    if recipe.launch.ray.address != "auto":
        env["RAY_ADDRESS"] = recipe.launch.ray.address
    title = f"{recipe.name}: {recipe.summary}"
    words = [str(folder / FILE)]
    return render_command(recipe.swift_command, {}, env=env, title=title, words=words)
