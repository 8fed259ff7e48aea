"""`palmswift recipes`: list, show, check and copy recipes."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError, Problem
from palmswift.files import write_text
from palmswift.paths import user_path

_EXAMPLES = """
palmswift recipes list
palmswift recipes show qwen3_8b_4bit --set swift.lora_rank=32
palmswift recipes check
palmswift recipes check my_recipe.yaml
palmswift recipes copy qwen3_8b_4bit my_recipe.yaml
"""
_NAME_LINE = re.compile(r"^name:.*$", re.MULTILINE)
_SCHEMA_LINE = re.compile(r"^# yaml-language-server:.*$", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 when a recipe is wrong or does not exist."""
    parser = make_parser("palmswift recipes", "List, show, check and copy recipes.", _EXAMPLES)
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    words.add_parser("list", parents=[_json()], help="the shipped recipes")
    show = words.add_parser("show", parents=[_json()], help="a recipe with its base put under it")
    show.add_argument("name", help="a recipe's name or file")
    show.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    check = words.add_parser(
        "check", parents=[_json()], help="check recipes, all when none is named"
    )
    check.add_argument("files", nargs="*", metavar="FILE", help="recipe names or files")
    copy = words.add_parser("copy", parents=[_json()], help="take a recipe home to edit it")
    copy.add_argument("name", help="a recipe's name or file")
    copy.add_argument("dest", nargs="?", help="the new file or its folder (NAME.yaml here)")
    return run(parser, _choose, argv)


def _json() -> argparse.ArgumentParser:
    """`--json` after the word as well as before it."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    return parent


def _choose(arguments: argparse.Namespace, console: Console) -> Done:
    words: dict[str, Callable[[argparse.Namespace, Console], Done]] = {
        "list": _list,
        "show": _show,
        "check": _check,
        "copy": _copy,
    }
    return words[arguments.word](arguments, console)


def _list(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.load import list_recipes  # pydantic's 0.2 s are not for --help

    rows = []
    for listed in list_recipes():
        recipe = listed.recipe
        summary = recipe.summary if recipe else f"broken: {listed.problems[0].what}"
        gpu = recipe.budget.gpu_mib if recipe else None
        rows.append({"name": listed.name, "summary": summary, "gpu_mib": gpu})
        needs = "" if gpu is None else "CPU" if gpu == 0 else f"{gpu} MiB GPU"
        console.say(f"{listed.name:<24} {needs:<13} {summary}")
    return Done({"recipes": rows})


def _show(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.load import load_checked, resolved_yaml

    recipe = load_checked(arguments.name, arguments.set).recipe
    console.say(resolved_yaml(recipe).rstrip())
    return Done({"recipe": recipe.model_dump(mode="json")})


def _check(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.check import check_recipe
    from palmswift.recipes.source import read_recipe, recipe_names

    problems: list[Problem] = []
    checked = arguments.files or recipe_names()
    for name in checked:
        try:
            found = check_recipe(read_recipe(name))
        except InputError as error:
            found = list(error.problems) or [Problem(error.summary, name, error.remedy)]
        if not found:
            console.say(f"{name}: ok")
        problems += found
    if problems:
        raise InputError(f"{len(problems)} to mend in {len(checked)} checked", problems)
    return Done({"checked": list(checked)})


def _copy(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.source import find_recipe, recipes_dir, shown

    source = find_recipe(arguments.name)
    target = user_path(arguments.dest or f"{source.stem}.yaml")
    if target.is_dir():
        target = target / f"{source.stem}.yaml"
    if not target.suffix:
        target = target.with_suffix(".yaml")
    if target.exists():
        raise InputError(f"{target} is there already", remedy="name another file")
    text = _NAME_LINE.sub(f"name: {target.stem}", source.read_text(encoding="utf-8"), count=1)
    schema = os.path.relpath(recipes_dir() / "recipe.schema.json", target.resolve().parent)
    text = _SCHEMA_LINE.sub(f"# yaml-language-server: $schema={schema}", text, count=1)
    write_text(target, text)
    console.say(f"wrote {shown(target)}; try: palmswift recipes check {shown(target)}")
    return Done({"path": str(target)})
