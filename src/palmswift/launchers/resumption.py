"""What a run that is gone on with has to have in common with how it began, and what it need not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from palmswift.command import Console
from palmswift.data.read import open_files
from palmswift.errors import InputError, Problem
from palmswift.files import sha256_of, write_text
from palmswift.launchers.record import contents_of, package_versions, plugin_contents
from palmswift.launchers.run_folder import RunFolder, checkpoints
from palmswift.paths import project_path
from palmswift.recipes.difference import Difference, differences
from palmswift.recipes.load import load_checked, resolved_yaml
from palmswift.recipes.recipe import Recipe

LENGTHENING = ("swift.num_train_epochs", "swift.max_steps")
"""What may be raised for a run that goes on."""

_OF_DATA = ("data.train", "data.val", "eval.suite")
_BEFORE_TRAINED = ("model", "data", "train")
_DECISIVE = ("ms-swift", "torch", "transformers", "peft", "trl", "bitsandbytes")


def refuse_another(run: RunFolder, wanted: Recipe, *, own_data: bool) -> list[Difference]:
    """The lengthening that is asked for; `InputError` with all else in which `wanted` differs.

    `own_data`: data files were named, which are compared by what is in them.
    """
    found = differences(run.recipe, wanted)
    problems = []
    if own_data:
        found = [each for each in found if each.key not in _OF_DATA]
        problems += _data_problems(run, wanted)
    longer = [each for each in found if _is_longer(each)]
    problems += [
        Problem(
            f"the run has {_shown(each.first)}, and {_shown(each.second)} is asked for", each.key
        )
        for each in found
        if each not in longer
    ]
    if longer:
        problems += _lengthening_problems(run)
    if problems:
        raise InputError(
            f"{run.path.name} cannot go on as another training",
            problems,
            remedy="without them it goes on as it began; another training is a new run, without "
            f"--resume. What may be raised: {', '.join(LENGTHENING)}",
        )
    return longer


def _is_longer(difference: Difference) -> bool:
    first, second = difference.first, difference.second
    numbers = isinstance(first, int | float) and isinstance(second, int | float)
    return difference.key in LENGTHENING and numbers and second > first


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _data_problems(run: RunFolder, wanted: Recipe) -> list[Problem]:
    """Files that hold something else than those that the run began with; their names may differ."""
    try:
        open_files([project_path(name) for name in (*wanted.data.train, *wanted.data.val)])
    except InputError as error:
        return list(error.problems) or [Problem(error.summary)]
    began, now = run.state.inputs, contents_of(wanted)
    known = set(began.values())
    was = ", ".join(f"{Path(path).name} {digest[:12]}" for path, digest in began.items())
    problems = [
        Problem(f"its SHA-256 is {digest[:12]}; the run began with {was}", path)
        for path, digest in now.items()
        if digest not in known
    ]
    given = set(now.values())
    for name, digest in began.items():
        if wanted.data.val and digest not in given:
            problems.append(Problem("the run began with it, and it is not among the data", name))
    return problems


def _lengthening_problems(run: RunFolder) -> list[Problem]:
    later = [name for name in run.state.stages if name not in _BEFORE_TRAINED]
    if later:
        what = f"what it trained was used since ({', '.join(later)})"
        return [Problem(what, "a longer training", "start a new run")]
    if run.is_done("train") and not checkpoints(run.training):
        what = "its checkpoints have no optimizer any more (`palmswift runs clean`)"
        return [Problem(what, "a longer training", "start a new run")]
    return []


def lengthen(run: RunFolder, longer: list[Difference], console: Console) -> None:
    """Let the run train on to a later end, and keep what its recipe was."""
    number = 1
    while (kept := run.path / f"recipe.resolved.{number}.yaml").exists():
        number += 1
    write_text(kept, resolved_yaml(run.recipe))
    changes = {each.key.partition(".")[2]: each.second for each in longer}
    for file, recipe in (
        (run.recovered_recipe, run.training_recipe),
        (run.path / "recipe.resolved.yaml", run.recipe),
    ):
        if file.is_file():
            changed = recipe.model_copy(update={"swift": {**recipe.swift, **changes}})
            write_text(file, resolved_yaml(changed))
    run.recipe = run.recipe.model_copy(update={"swift": {**run.recipe.swift, **changes}})
    run.state.overrides += [f"{each.key}={each.second}" for each in longer]
    steps = [int(path.name.rpartition("-")[2]) for path in checkpoints(run.training)]
    run.state.lengthened_at = max(steps, default=0)
    if stage := run.state.stages.get("train"):
        stage.state = "interrupted"
    run.save()
    for each in longer:
        console.note(
            f"note     {each.key} is raised from {each.first} to {each.second}: the learning"
        )
    console.note(
        "         rate follows the longer schedule from here on, so this is not to the bit"
    )
    console.note("         what that many would have given from the start")


def refuse_changed_rows(run: RunFolder) -> list[Problem]:
    """Rows in the run's own data folder that are not those that it has trained on so far."""
    recorded = run.facts("data").get("rows")
    if not run.is_done("data") or not isinstance(recorded, dict):
        return []
    problems = []
    for name, digest in recorded.items():
        file = run.data / name
        if not file.is_file():
            problems.append(Problem("it is gone", str(file), "put it back, or start a new run"))
        elif isinstance(digest, str) and (now := sha256_of(file)) != digest:
            what = f"it was changed (SHA-256 {digest[:12]} then, {now[:12]} now)"
            problems.append(Problem(what, str(file), "put it back, or start a new run"))
    return problems


def remarks(run: RunFolder) -> list[str]:
    """What has changed around the run since it began, and does not keep it from going on."""
    found = []
    now = package_versions(run.recipe)
    changed = [
        f"{name} {run.state.versions[name]} is {now[name]} now"
        for name in _DECISIVE
        if name in run.state.versions and name in now and run.state.versions[name] != now[name]
    ]
    if changed:
        found.append(f"{', '.join(changed)}: what follows may differ in the last bits")
    plugins = plugin_contents(run.recipe)
    found += [
        f"plugin {name} was changed since the run began"
        for name, digest in run.state.plugins.items()
        if plugins.get(name, digest) != digest
    ]
    if run.is_done("data"):
        rows = contents_of(run.recipe)
        found += [
            f"{path} was changed since; the run goes on with the rows that it began with"
            for path, digest in run.state.inputs.items()
            if rows.get(path, digest) != digest
        ]
    try:
        on_disk = load_checked(run.state.recipe, run.state.overrides).recipe
    except InputError:  # a file of the user's own that has moved, or a recipe that is gone
        return found
    since = [each for each in differences(run.recipe, on_disk) if each.key not in _OF_DATA]
    if since:
        told = "; ".join(map(str, since[:5])) + ("; ..." if len(since) > 5 else "")
        found.append(f"recipe {run.state.recipe} was changed since ({told}); the run keeps its own")
    return found


def wanted_recipe(run: RunFolder, args: argparse.Namespace) -> Recipe | None:
    """What the arguments beside `--resume` ask for; None when there are none.

    The run's own recipe may be named alone: its overrides and its data are then meant too.
    """
    from palmswift.launchers.train import with_data

    if not (args.recipe or args.data or args.val or args.set):
        return None
    if not args.recipe:
        recipe = load_checked(str(run.path / "recipe.resolved.yaml"), args.set).recipe
        return with_data(recipe, args.data, args.val)
    recipe = load_checked(args.recipe, [*run.state.overrides, *args.set]).recipe
    if recipe.name != run.state.recipe or args.data or args.val:
        return with_data(recipe, args.data, args.val)
    same = {"train": run.recipe.data.train, "val": run.recipe.data.val}
    suite = {"suite": run.recipe.eval.suite}
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=same),
            "eval": recipe.eval.model_copy(update=suite),
        }
    )
