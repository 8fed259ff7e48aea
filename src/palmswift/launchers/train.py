"""The `train` command: a recipe and data in, a judged checkpoint in a run folder out."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import ChildError, InputError

if TYPE_CHECKING:
    from palmswift.launchers.run_folder import RunFolder
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
        help="training rows (a file, folder or pattern) in place of the recipe's; may be repeated",
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
        "--force",
        action="store_true",
        help="start even what is predicted to run out of GPU memory",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe and the exact command; write and start nothing",
    )


def chosen_recipe(args: argparse.Namespace) -> Recipe:
    """The checked recipe that the arguments name, with their data and overrides in it."""
    from palmswift.recipes.load import load_checked

    if args.resume:
        raise InputError(
            "--dry-run shows what a recipe would run",
            remedy="what the run has run is in its command.sh; leave --dry-run out to go on",
        )
    if not args.recipe:
        raise InputError("no recipe is named", remedy="--recipe NAME; `palmswift recipes list`")
    recipe = load_checked(args.recipe, args.set).recipe
    return with_data(recipe, args.data, args.val)


def with_data(recipe: Recipe, train: Sequence[str], val: Sequence[str]) -> Recipe:
    """The recipe with the command line's data files in place of its own."""
    from palmswift.paths import user_path

    changes: dict[str, list[str]] = {}
    if train:
        # The recipe's validation rows belong to the recipe's own training rows.
        changes = {"train": [str(user_path(name).absolute()) for name in train], "val": []}
    if val:
        changes["val"] = [str(user_path(name).absolute()) for name in val]
    parts: dict[str, object] = {"data": recipe.data.model_copy(update=changes)}
    if train:
        # Nor does its suite ask about other rows; the pipeline then tests on held-out ones.
        parts["eval"] = recipe.eval.model_copy(update={"suite": None})
    return recipe.model_copy(update=parts)


def resumed_run(args: argparse.Namespace, console: Console) -> RunFolder:
    """The run that `--resume` names, if it can go on here, and as what else is asked for."""
    from palmswift.launchers.resumption import lengthen, refuse_another, remarks, wanted_recipe
    from palmswift.launchers.run_folder import find_run
    from palmswift.launchers.training import preflight_resumed

    folder = find_run(args.resume)
    wanted = wanted_recipe(folder, args)
    longer = refuse_another(folder, wanted, own_data=bool(args.data or args.val)) if wanted else []
    preflight_resumed(folder, force=args.force)
    if longer:
        with folder.lock():
            lengthen(folder, longer, console)
    if not folder.is_done("train"):
        for remark in remarks(folder):
            console.note(f"note     {remark}")
    return folder


def new_run(recipe: Recipe, overrides: Sequence[str], *, force: bool = False) -> RunFolder:
    """A run folder for the recipe, made when nothing speaks against training here.

    `force` overrides one reason alone: that it is predicted to run out of GPU memory.
    """
    from palmswift.launchers.run_folder import RunFolder
    from palmswift.launchers.training import preflight, write_plan
    from palmswift.paths import runs_dir

    preflight(recipe, runs_dir(), force=force, overrides=overrides)
    folder = RunFolder.create(recipe, overrides=list(overrides))
    write_plan(folder)
    return folder


def dry_run(recipe: Recipe, console: Console) -> Done:
    """Print the resolved recipe and the command, with the paths that a run would have."""
    from palmswift.launchers.arguments import TrainingPaths
    from palmswift.launchers.engines.commands import command_of, launch_files
    from palmswift.launchers.engines.submit import job_files
    from palmswift.paths import runs_dir
    from palmswift.recipes.load import resolved_yaml

    folder = runs_dir() / f"{recipe.name}-TIME"
    paths = TrainingPaths(
        model=recipe.model.id,
        train=folder / "data" / "train.jsonl",
        val=folder / "data" / "val.jsonl",
        output=folder / "train",
        teacher=recipe.teacher.id if recipe.teacher else None,
    )
    command = command_of(recipe, paths, folder / "launch")
    files = {**launch_files(recipe, paths, folder / "launch"), **job_files(recipe, folder)}
    console.say(resolved_yaml(recipe))
    for name, text in files.items():
        console.say(f"# launch/{name}\n{text}")
    console.say(command.script)
    resolved = recipe.model_dump(mode="json", exclude={"base"})
    document = {"recipe": resolved, "argv": command.argv, "env": command.env}
    return Done({**document, "files": files} if files else document)


@contextlib.contextmanager
def held(folder: RunFolder, console: Console, script: str) -> Iterator[None]:
    """Keep others off the run; when its work stops short, say how `script` goes on with it."""
    from palmswift.launchers.machine import version_remark

    go_on = f"python launchers/{script} --resume {folder.path.name}"
    if remark := version_remark():
        console.note(f"note     {remark}")
    console.note(f"run      {folder.path}")
    with folder.lock(), folder.room_kept():
        try:
            yield
        except KeyboardInterrupt:
            console.note(f"stopped; go on with: {go_on}")
            raise
        except ChildError as error:
            remedy = f"{error.remedy}\n     then go on with: {go_on}"
            raise ChildError(error.summary, error.problems, remedy=remedy) from error
        finally:
            _leave_summary(folder, console)


def _leave_summary(folder: RunFolder, console: Console) -> None:
    """Write the run's page, however its work has ended."""
    from palmswift.launchers.summary_page import write_summary
    from palmswift.recipes.source import shown

    if not folder.state.stages:
        return
    try:
        path = write_summary(folder)
    except Exception as error:  # noqa: BLE001  # hours of training do not fail by their page
        console.note(f"note     the summary page could not be written: {error}")
    else:
        console.note(f"summary  {shown(path)}")


def launch(folder: RunFolder, console: Console) -> Path | dict[str, Any]:
    """Train the run as its recipe launches it; the checkpoint.

    Where none comes of it here, what a command prints instead: the job that a scheduler has been
    given, or that another node has the result.
    """
    from palmswift.launchers.engines.machine import submits
    from palmswift.launchers.engines.place import is_in_job
    from palmswift.launchers.engines.submit import prepare_job, submit
    from palmswift.launchers.training import follow_stages, train_stages

    if submits(folder.recipe) and not folder.is_done("train"):
        with held(folder, console, "train.py"):
            job = prepare_job(folder, console)
        return submit(folder, job, console)
    with held(folder, console, "train.py"):
        if folder.recipe.launch.follows and not is_in_job():
            follow_stages(folder, console)
            console.say("done     node 0 has the result")
            return {"run": str(folder.path), "stages": folder.stages_document()}
        return train_stages(folder, console)


def _body(args: argparse.Namespace, console: Console) -> Done:
    if args.dry_run:
        return dry_run(chosen_recipe(args), console)
    from palmswift.plan.serving_text import way_line, ways_of
    from palmswift.recipes.source import shown

    folder = (
        resumed_run(args, console)
        if args.resume
        else new_run(chosen_recipe(args), args.set, force=args.force)
    )
    checkpoint = launch(folder, console)
    if isinstance(checkpoint, dict):
        return Done(checkpoint)
    console.say(f"trained  {shown(checkpoint)}")
    console.say(f"serve    python deploy/serve.py --run {folder.path.name}")
    if best := ways_of(folder.recipe).best:
        console.say(f"         on the same card: {way_line(best)} (predicted)")
    return Done(_document(folder, checkpoint))


def _document(folder: RunFolder, checkpoint: Path) -> dict[str, Any]:
    return {
        "run": str(folder.path),
        "checkpoint": str(checkpoint),
        "stages": folder.stages_document(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = make_parser("train.py", "Train what a recipe says.", EXAMPLES)
    add_recipe_arguments(parser)
    return run(parser, _body, argv)
