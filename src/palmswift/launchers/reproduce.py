"""Repeats a run from its run.json alone, or says all that is not as it was."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from palmswift.errors import GateError, InputError, Problem
from palmswift.files import is_file, sha256_of
from palmswift.launchers.run_compare import Difference, conditions, shown
from palmswift.launchers.run_folder import RunFolder, RunState, find_run, state_now
from palmswift.paths import project_path, user_path
from palmswift.recipes.recipe import Recipe


class Original(NamedTuple):
    """The run that is to be repeated."""

    name: str
    state: RunState
    recipe: Recipe


def original(name: str) -> Original:
    """What is repeated: a run by its name, `latest`, its folder, or a run.json that was kept.

    `InputError` when it cannot be read, or is from before run.json had the recipe in it.
    """
    file = user_path(name)
    if not (file.suffix == ".json" and is_file(file)):
        file = find_run(name).path / "run.json"
    try:
        state = RunState.model_validate_json(file.read_text(encoding="utf-8"))
        if not state.resolved:
            raise InputError(f"{file} is of an older palmswift: it has no recipe in it")
        recipe = Recipe.model_validate(state.resolved)
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    # Keys that recipes have only since then were as their defaults are.
    resolved = recipe.model_dump(mode="json", exclude={"base"})
    state = state.model_copy(update={"resolved": resolved})
    known = file.resolve().parent.name if file.name == "run.json" else file.stem
    return Original(known, state, recipe)


def with_moved_data(found: Original, data: list[str], val: list[str]) -> Original:
    """The run with its data files where they lie now (their hashes are still compared)."""
    changes: dict[str, list[str]] = {}
    if data:
        changes["train"] = [str(user_path(name).absolute()) for name in data]
    if val:
        changes["val"] = [str(user_path(name).absolute()) for name in val]
    recipe = found.recipe.model_copy(
        update={"data": found.recipe.data.model_copy(update=changes)} if changes else {}
    )
    return found._replace(recipe=recipe)


def what_differs(found: Original) -> list[Difference]:
    """All that is not as it was: data by hash, model, code, plugins, versions, hardware."""
    now = state_now(found.recipe)
    model = found.state.stages.get("model")
    if model is not None and found.recipe.model.source == "local":
        now.stages["model"] = model.model_copy(
            update={"facts": {"files": _files_now(str(project_path(found.recipe.model.id)))}}
        )
    moved = [
        difference
        for difference in conditions(found.state, now)
        if not (difference.part == "recipe" and difference.key.startswith("data."))
        and difference.part != "data"
    ]
    return [*_data_differences(found.state.inputs, now.inputs), *moved]


def _files_now(model: str) -> dict[str, str]:
    from palmswift.launchers.record import model_contents

    return model_contents(model)


def _data_differences(before: dict[str, str], now: dict[str, str]) -> list[Difference]:
    """Files whose content is not there any more, wherever they lie, and those that are new."""
    known, present = set(before.values()), set(now.values())
    gone = [
        Difference("data", path, digest[:12], shown(_digest(path)))
        for path, digest in before.items()
        if digest not in present
    ]
    new = [
        Difference("data", path, shown(None), digest[:12])
        for path, digest in now.items()
        if digest not in known and path not in before
    ]
    return [*gone, *new]


def _digest(path: str) -> str:
    return sha256_of(Path(path))[:12] if is_file(Path(path)) else "missing"


def was_recovered(found: Original) -> list[str]:
    """What recovery changed in the original's recipe on its way; the repetition starts without."""
    stage = found.state.stages.get("train")
    attempts = stage.facts.get("attempts") if stage else None
    if not isinstance(attempts, list):
        return []
    return [str(change) for each in attempts for change in each.get("changes") or []]


def refuse(found: Original, differences: list[Difference]) -> None:
    """`GateError` with all that differs; nothing when nothing does."""
    if not differences:
        return
    raise GateError(
        f"{found.name} cannot be repeated exactly here",
        [
            Problem(f"{each.first} then, {each.second} now", f"{each.part} {each.key}")
            for each in differences
        ],
        remedy="make them equal (--data FILE where rows have moved), or --force starts it as it is",
    )


def results_compared(before: RunState, run: RunFolder) -> list[str]:
    """What the repetition came to beside the original, a line for each number."""
    then = before.stages.get("train")
    if then is None:
        return []
    now = run.facts("train")
    lines = []
    for key in ("steps", "first_loss", "last_loss", "eval_losses"):
        one, two = then.facts.get(key), now.get(key)
        if one is None and two is None:
            continue
        same = "the same" if one == two else f"{shown(one)} then, {shown(two)} now"
        lines.append(f"{key.replace('_', ' ')}: {same}")
    rows, rows_now = _rows(before), run.facts("data").get("rows")
    if rows is not None:
        lines.append(f"cleaned rows: {'the same' if rows == rows_now else 'not the same'}")
    return lines


def _rows(state: RunState) -> object:
    stage = state.stages.get("data")
    return stage.facts.get("rows") if stage else None
