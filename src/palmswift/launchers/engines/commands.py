"""The command that trains a run here, by the engine and scheduler that its recipe names."""

from __future__ import annotations

from pathlib import Path

from palmswift.files import write_text
from palmswift.launchers.arguments import TrainingPaths
from palmswift.launchers.engines import mlx_engine, ray_engine
from palmswift.launchers.engines.arguments import rank_log_environment
from palmswift.launchers.engines.place import placed
from palmswift.launchers.render import Rendered, render_training
from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.launch import accumulation_of_one
from palmswift.recipes.recipe import Recipe


def training_command(run: RunFolder, recipe: Recipe, paths: TrainingPaths) -> Rendered:
    """The command for this machine; files that it reads are written into the run's launch/.

    `recipe` is the run's, or what recovering from a failure has made of it.
    """
    recipe = placed(recipe)
    files = launch_files(recipe, paths, run.launch)
    for name, text in files.items():
        write_text(run.launch / name, text)
    if recipe.launch.engine == "mlx":
        mlx_engine.encode(recipe, paths, run.launch, run.logs / "tokens.log")
    logs = rank_log_environment(recipe.launch, run.logs)
    recipe = recipe.model_copy(update={"env": {**logs, **recipe.env}})
    return command_of(recipe, paths, run.launch)


def command_of(recipe: Recipe, paths: TrainingPaths, folder: Path) -> Rendered:
    """The command, which finds its files in `folder`."""
    if recipe.launch.engine == "mlx":
        return mlx_engine.command(recipe, paths, folder)
    if recipe.launch.scheduler == "ray":
        return ray_engine.command(recipe, paths, folder)
    return render_training(recipe, paths)


def launch_files(recipe: Recipe, paths: TrainingPaths, folder: Path) -> dict[str, str]:
    """Name to text of the files that the command reads, beside the rows."""
    if recipe.launch.engine == "mlx":
        return mlx_engine.files(recipe, paths, folder)
    if recipe.launch.scheduler == "ray":
        return ray_engine.files(recipe, paths)
    return {}


def launch_remarks(recipe: Recipe, rows: int) -> list[str]:
    """What several processes make of the recipe, in sentences; none for one process."""
    launch, swift = recipe.launch, recipe.swift
    if launch.world == 1:
        return []
    one = accumulation_of_one(swift)
    batch = swift.get("per_device_train_batch_size", 1)
    remarks = [
        f"{launch.world} processes x {batch} rows x {one // launch.world} accumulated: "
        f"{batch} x {one} rows a step, as in one process"
    ]
    if left := rows % launch.world:
        remarks.append(
            f"{left} of {rows} rows {'is' if left == 1 else 'are'} left out: ms-swift gives each "
            f"of {launch.world} processes the same number"
        )
    return remarks
