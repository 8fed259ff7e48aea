"""`--set NAME=VALUE`: `swift deploy` arguments from the command line, checked before the start."""

from __future__ import annotations

from collections.abc import Sequence

from palmswift.errors import InputError, Problem
from palmswift.recipes.catalogue import Flag, check_value, load_catalogue, nearest
from palmswift.recipes.recipe import SwiftValue
from palmswift.recipes.yaml_text import parse


def parse_settings(words: Sequence[str]) -> dict[str, SwiftValue]:
    """The arguments that the words set, values read as YAML; `InputError` with every fault."""
    catalogue = load_catalogue()
    flags = catalogue.flags("deploy")
    title = f"`swift deploy` of ms-swift {catalogue.ms_swift}"
    settings: dict[str, SwiftValue] = {}
    problems = []
    for word in words:
        name, equals, text = word.partition("=")
        where = f"--set {word}"
        read = parse(text, where)
        if not equals or not name or not text.strip():
            problems.append(Problem("is not NAME=VALUE", where, "--set max_batch_size=4"))
        elif name not in flags:
            what = f"{name} is not an argument of {title}"
            problems.append(Problem(what, where, _like(name, flags)))
        elif read.problems:
            problems += read.problems
        elif fault := check_value(flags[name], read.value):
            problems.append(Problem(f"{name}: {fault}", where, flags[name].doc))
        else:
            settings[name] = read.value
    if problems:
        raise InputError("the settings cannot be used", problems)
    return settings


def _like(name: str, flags: dict[str, Flag]) -> str:
    plain = name.strip("-").replace("-", "_").removeprefix("swift.")
    like = [plain] if plain in flags else nearest(plain, flags)
    return f"did you mean {' or '.join(like)}?" if like else "take it away"
