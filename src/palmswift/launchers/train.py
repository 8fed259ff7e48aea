"""The `train` command: a recipe and data in, a judged checkpoint in a run folder out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError, Problem
from palmswift.launchers.arguments import (
    TrainingPaths,
    child_environment,
    training_arguments,
)
from palmswift.launchers.render import render_command
from palmswift.launchers.run_folder import RunFolder, find_run
from palmswift.paths import runs_dir
from palmswift.recipes.load import load_checked
from palmswift.recipes.recipe import Recipe

EXAMPLES = """
python launchers/train.py --recipe qwen3_8b_4bit --data my.jsonl
python launchers/train.py --recipe qwen3_8b_4bit --data my.csv --set swift.lora_rank=8
python launchers/train.py --recipe qwen3_8b_4bit --dry-run
python launchers/train.py --recipe demo_cpu
python launchers/train.py --resume latest
"""


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose a recipe, its data and its run; shared with the pipeline."""
    parser.add_argument("--recipe", metavar="NAME", help="a recipe's name, or a YAML file")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="FILE",
        help="training rows (JSONL, JSON or CSV) in place of the recipe's; may be repeated",
    )
    parser.add_argument(
        "--val",
        action="append",
        default=[],
        metavar="FILE",
        help="validation rows; without any, a share of the training rows is held out",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the recipe, such as swift.lora_rank=16; may be repeated",
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run: `latest`, its name under runs/, or its folder",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe and the exact command; write and start nothing",
    )


def chosen_recipe(args: argparse.Namespace) -> Recipe:
    """The checked recipe that the arguments name, with their data and overrides in it."""
    if not args.recipe:
        raise InputError("no recipe is named", remedy="--recipe NAME; `palmswift recipes list`")
    recipe = load_checked(args.recipe, args.set).recipe
    return with_data(recipe, args.data, args.val)


def with_data(recipe: Recipe, train: Sequence[str], val: Sequence[str]) -> Recipe:
    """The recipe with the command line's data files in place of its own."""
    changes: dict[str, list[str]] = {}
    if train:
        # The recipe's validation rows belong to the recipe's own training rows.
        changes = {"train": [str(Path(name).resolve()) for name in train], "val": []}
    if val:
        changes["val"] = [str(Path(name).resolve()) for name in val]
    parts: dict[str, object] = {"data": recipe.data.model_copy(update=changes)}
    if train:
        # Nor does its suite ask about other rows; the pipeline then tests on held-out ones.
        parts["eval"] = recipe.eval.model_copy(update={"suite": None})
    return recipe.model_copy(update=parts)


def opened_run(args: argparse.Namespace) -> RunFolder:
    """The run to go on with, or a new one after the preflight."""
    from palmswift.launchers.training import preflight

    if args.resume:
        given = [name for name in ("recipe", "data", "val", "set") if getattr(args, name)]
        if given:
            raise InputError(
                "a resumed run keeps its own recipe and data",
                [Problem(f"--{name} was given beside --resume") for name in given],
                remedy="leave them out, or start a new run without --resume",
            )
        return find_run(args.resume)
    recipe = chosen_recipe(args)
    preflight(recipe, runs_dir())
    return RunFolder.create(recipe, overrides=list(args.set))


def dry_run(recipe: Recipe, console: Console) -> Done:
    """Print the resolved recipe and the command, with the paths that a run would have."""
    import yaml

    folder = runs_dir() / f"{recipe.name}-TIME"
    model = recipe.model.id
    paths = TrainingPaths(
        model=model,
        train=folder / "data" / "train.jsonl",
        val=folder / "data" / "val.jsonl",
        output=folder / "train",
    )
    command = render_command(
        recipe.swift_command,
        training_arguments(recipe, paths),
        env=child_environment(recipe, model),
        title=f"{recipe.name}: {recipe.summary}",
    )
    resolved = recipe.model_dump(mode="json", exclude={"base"})
    console.say(yaml.safe_dump(resolved, allow_unicode=True, sort_keys=False))
    console.say(command.script)
    return Done({"recipe": resolved, "argv": command.argv, "env": command.env})


def interrupted_hint(folder: Path, script: str) -> str:
    """How to go on with a run that was stopped."""
    return f"stopped; go on with: python launchers/{script} --resume {folder.name}"


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.dry_run:
        return dry_run(chosen_recipe(args), console)
    from palmswift.launchers.training import train_stages

    folder = opened_run(args)
    console.note(f"run      {folder.path}")
    with folder.lock():
        try:
            checkpoint = train_stages(folder, console)
        except KeyboardInterrupt:
            console.note(interrupted_hint(folder.path, "train.py"))
            raise
    console.say(f"trained: {checkpoint}")
    console.say(f"serve it: python deploy/serve.py --run {folder.path.name}")
    return Done(_document(folder, checkpoint))


def _document(folder: RunFolder, checkpoint: Path) -> dict[str, Any]:
    stages = {name: stage.model_dump(mode="json") for name, stage in folder.state.stages.items()}
    return {"run": str(folder.path), "checkpoint": str(checkpoint), "stages": stages}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = make_parser("train.py", "Train what a recipe says.", EXAMPLES)
    add_recipe_arguments(parser)
    return run(parser, _body, argv)
