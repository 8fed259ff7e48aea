"""`palmswift recipes`: list, show, check, copy, compare, import and export recipes.

It stands over the rooms, since an export renders what a launcher would run.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import GateError, InputError, Problem
from palmswift.files import write_text
from palmswift.paths import user_path

_EXAMPLES = """
palmswift recipes list
palmswift recipes show qwen3_8b_4bit --set swift.lora_rank=32
palmswift recipes check
palmswift recipes check my_recipe.yaml
palmswift recipes copy qwen3_8b_4bit my_recipe.yaml
palmswift recipes diff qwen3_8b_4bit my_recipe.yaml
palmswift recipes import train.sh my_recipe.yaml
palmswift recipes export qwen3_8b_4bit --to sh
"""
_NAME_LINE = re.compile(r"^name:.*$", re.MULTILINE)
_SCHEMA_LINE = re.compile(r"^# yaml-language-server:.*$", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 when a recipe is wrong or does not exist."""
    parser = make_parser(
        "palmswift recipes", "List, check, copy, compare, import and export recipes.", _EXAMPLES
    )
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
    diff = words.add_parser("diff", parents=[_json()], help="what two recipes say differently")
    diff.add_argument("first", help="a recipe's name or file")
    diff.add_argument("second", help="a recipe's name or file")
    _add_import(words.add_parser("import", parents=[_json()], help="a `swift` script as a recipe"))
    export = words.add_parser("export", parents=[_json()], help="a recipe for ms-swift alone")
    export.add_argument("name", help="a recipe's name or file")
    export.add_argument("dest", nargs="?", help="the new file (printed without it)")
    export.add_argument(
        "--to",
        choices=("swift-yaml", "sh"),
        required=True,
        help="the YAML that `swift sft FILE.yaml` reads, or a shell script",
    )
    export.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return run(parser, _choose, argv)


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("script", metavar="SCRIPT.sh", help="a script with `swift` commands")
    parser.add_argument("dest", nargs="?", help="the new file or its folder (SCRIPT.yaml here)")
    parser.add_argument(
        "--define",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable that the script takes from outside; may be repeated",
    )
    parser.add_argument(
        "--take",
        type=int,
        metavar="N",
        help="import the Nth `swift` command alone (the first training and what follows from it)",
    )
    parser.add_argument(
        "--gpu-mib", type=int, default=8188, metavar="MIB", help="the card it is for (8188)"
    )


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
        "diff": _diff,
        "import": _import,
        "export": _export,
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
    from palmswift.plan.serving_text import way_line, ways_of
    from palmswift.recipes.load import load_checked, resolved_yaml

    recipe = load_checked(arguments.name, arguments.set).recipe
    console.say(resolved_yaml(recipe).rstrip())
    ways = [way for way in ways_of(recipe) if way is not None]
    if ways:
        console.say("# its result served on the same card (predicted):")
    for way in ways:
        console.say(f"#   {way_line(way)}")
    serving = [{**way.model_dump(mode="json"), "settings": way.settings} for way in ways]
    return Done({"recipe": recipe.model_dump(mode="json"), "serving": serving})


def _check(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.catalogue import chosen_version
    from palmswift.recipes.check import check_recipe
    from palmswift.recipes.source import read_recipe, recipe_names

    checked_for = chosen_version()
    if checked_for.remark:
        console.note(f"note: {checked_for.remark}")
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
    return Done({"checked": list(checked), "ms_swift": checked_for.version})


def _copy(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.source import find_recipe, recipes_dir, shown

    source = find_recipe(arguments.name)
    target = _new_file(arguments.dest, source.stem)
    text = _NAME_LINE.sub(f"name: {target.stem}", source.read_text(encoding="utf-8"), count=1)
    schema = os.path.relpath(recipes_dir() / "recipe.schema.json", target.resolve().parent)
    text = _SCHEMA_LINE.sub(f"# yaml-language-server: $schema={schema}", text, count=1)
    write_text(target, text)
    console.say(f"wrote {shown(target)}; try: palmswift recipes check {shown(target)}")
    return Done({"path": str(target)})


def _new_file(dest: str | None, stem: str) -> Path:
    """The recipe file to write. InputError: there is one already."""
    target = user_path(dest or f"{stem}.yaml")
    if target.is_dir():
        target = target / f"{stem}.yaml"
    if not target.suffix:
        target = target.with_suffix(".yaml")
    if target.exists():
        raise InputError(f"{target} is there already", remedy="name another file")
    return target


def _diff(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.difference import differences
    from palmswift.recipes.load import load_recipe

    first, second = (load_recipe(name).recipe for name in (arguments.first, arguments.second))
    found = differences(first, second)
    for change in found:
        console.say(str(change))
    if not found:
        console.say("they say the same")
    return Done({"differences": [change._asdict() for change in found]})


def _import(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.recipes.check import check_recipe
    from palmswift.recipes.from_script import recipe_of
    from palmswift.recipes.source import read_recipe, recipes_dir, shown
    from palmswift.recipes.swift_script import read_calls
    from palmswift.recipes.yaml_text import dump

    script = user_path(arguments.script)
    stem = re.sub(r"[^\w.-]", "_", script.stem).lstrip(".-") or "imported"
    target = _new_file(arguments.dest, stem)
    calls = read_calls(_script_text(script), shown(script), _defined(arguments.define))
    if arguments.take is not None:
        if not 1 <= arguments.take <= len(calls):
            what = f"--take {arguments.take}: {shown(script)} has {len(calls)} `swift` commands"
            raise InputError(what)
        calls = [calls[arguments.take - 1]]
    imported = recipe_of(calls, shown(script), target.stem, arguments.gpu_mib)
    schema = os.path.relpath(recipes_dir() / "recipe.schema.json", target.resolve().parent)
    write_text(target, f"# yaml-language-server: $schema={schema}\n{dump(imported.values)}")
    for note in imported.notes:
        console.note(str(note))
    console.say(f"wrote {shown(target)}")
    document = {
        "path": str(target),
        "notes": [{"where": n.where, "what": n.what, "remedy": n.remedy} for n in imported.notes],
    }
    problems = check_recipe(read_recipe(str(target)))
    if problems:
        raise GateError(f"{shown(target)} is written, and to mend", problems)
    return Done(document)


def _script_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _defined(words: Sequence[str]) -> dict[str, str]:
    wrong = [word for word in words if not re.match(r"[A-Za-z_]\w*=", word)]
    if wrong:
        problems = [Problem("is not NAME=VALUE", f"--define {word}") for word in wrong]
        raise InputError("--define was not understood", problems)
    return dict(word.split("=", 1) for word in words)


def _export(arguments: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.standalone import standalone
    from palmswift.recipes.load import load_checked
    from palmswift.recipes.source import shown

    recipe = load_checked(arguments.name, arguments.set).recipe
    made = standalone(recipe, arguments.to)
    for remark in made.remarks:
        console.note(f"note: {remark}")
    if arguments.dest is None:
        console.say(made.text.rstrip())
        return Done({"text": made.text, "remarks": made.remarks})
    target = user_path(arguments.dest)
    if target.exists():
        raise InputError(f"{target} is there already", remedy="name another file")
    write_text(target, made.text)
    console.say(f"wrote {shown(target)}")
    return Done({"path": str(target), "remarks": made.remarks})
