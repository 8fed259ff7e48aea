"""Finds a recipe's file, puts it over its base and applies `--set`, keeping each key's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.errors import InputError, Problem
from palmswift.files import is_file
from palmswift.paths import project_root, user_path
from palmswift.recipes.catalogue import nearest
from palmswift.recipes.shape import section_at
from palmswift.recipes.yaml_text import Key, parse

_SUFFIXES = (".yaml", ".yml")


class RecipeText(NamedTuple):
    """A recipe before its types are checked: values over their base, and where each stands."""

    path: Path
    values: dict[str, Any]
    places: Mapping[Key, str]
    """Key to `file:line` of the recipe or its base, or to the `--set` that gave it."""
    problems: tuple[Problem, ...]
    """What was wrong with the text itself."""

    def place(self, key: Key) -> str:
        """`file:line` of `key`, else of the nearest key around it, else the file."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return shown(self.path)


class _Layer(NamedTuple):
    """One YAML file of a recipe."""

    values: dict[str, Any]
    places: dict[Key, str]
    problems: list[Problem]


def read_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> RecipeText:
    """The recipe's values over its base with the overrides on top, and all the text's problems.

    InputError: no such recipe, or a file that cannot be read as a map.
    """
    path = find_recipe(name_or_path)
    own = _read_layer(path)
    base = _read_base(path, own)
    values = _merged(base.values, own.values)
    places = {**base.places, **own.places}
    problems = [*base.problems, *own.problems]
    for override in overrides:
        problem = _apply(override, values, places)
        if problem is not None:
            problems.append(problem)
    return RecipeText(path, values, places, tuple(problems))


def find_recipe(name_or_path: str) -> Path:
    """The file of a shipped recipe's name, or the path itself. InputError: there is none."""
    path = user_path(name_or_path)
    is_path = path.suffix in _SUFFIXES or len(path.parts) > 1
    candidates = [path] if is_path else []
    if len(path.parts) == 1:
        candidates.append(recipes_dir() / (path.name if is_path else f"{path.name}.yaml"))
    for candidate in candidates:
        if is_file(candidate):
            return candidate
    if is_path and len(path.parts) > 1:
        raise InputError(
            f"no recipe file {name_or_path}", remedy="palmswift recipes list shows the names"
        )
    like = nearest(path.stem, recipe_names())
    hint = f"did you mean {' or '.join(like)}? " if like else ""
    raise InputError(
        f"no recipe is called {name_or_path!r}",
        remedy=f"{hint}palmswift recipes list shows all of them; a path to a YAML file works too",
    )


def recipes_dir() -> Path:
    """The folder of the shipped recipes."""
    return project_root() / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in recipes_dir().glob("*.yaml"))


def shown(path: Path) -> str:
    """`path` as a user would type it here: relative to the working folder where it lies in it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read_layer(path: Path) -> _Layer:
    name = shown(path)
    try:
        source = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    text = parse(source, name)
    if not isinstance(text.value, dict):
        what = "is empty" if text.value is None else "is not a map of keys to values"
        problems = text.problems or [Problem(what, name, "see recipes/demo_cpu.yaml for one")]
        raise InputError(f"recipe {name} cannot be read", problems)
    places = {key: f"{name}:{line}" for key, line in text.lines.items()}
    return _Layer(text.value, places, text.problems)


def _read_base(path: Path, own: _Layer) -> _Layer:
    """The base that a recipe names: beside it in bases/, else a shipped one; else an empty one."""
    empty = _Layer({}, {}, [])
    name = own.values.get("base")
    if not isinstance(name, str):  # absent, or a wrong type that the shape check tells
        return empty
    where = own.places[("base",)]
    folders = [path.parent / "bases", recipes_dir() / "bases"]
    found = next((f / f"{name}.yaml" for f in folders if is_file(f / f"{name}.yaml")), None)
    if found is None or Path(name).name != name:
        known = {file.stem for folder in folders for file in folder.glob("*.yaml")}
        like = nearest(name, known) or sorted(known)
        own.problems.append(Problem(f"no base is called {name!r}", where, f"bases: {like}"))
        return empty
    base = _read_layer(found)
    if "base" in base.values:
        what = f"{name} is a base and names a base itself; only one level is read"
        base.problems.append(Problem(what, base.places[("base",)], "move its keys into one file"))
    return base


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Maps merge by key, all else replaces; a null takes a key of the base away."""
    merged = dict(base)
    for key, value in own.items():
        below = base.get(key)
        if value is None and key in base:
            del merged[key]
        elif isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _apply(override: str, values: dict[str, Any], places: dict[Key, str]) -> Problem | None:
    """Put `a.b=c` into `values` in place; the problem when it cannot be."""
    where = f"--set {override}"
    name, equals, text = override.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        return Problem("is not KEY=VALUE", where, "for example --set swift.lora_rank=16")
    if not text.strip():
        return Problem("has no value", where, f"--set {name}=null takes the key away")
    fault = _unknown_part(key)
    if fault is not None:
        return Problem(fault, where, "palmswift recipes show NAME prints the keys")
    parsed = parse(text, where)
    if parsed.problems:
        return parsed.problems[0]
    parent = values
    for part in key[:-1]:
        child = parent.setdefault(part, {})
        if not isinstance(child, dict):
            return Problem(f"{part} is not a map, so nothing can be set in it", where)
        parent = child
    if parsed.value is None:
        parent.pop(key[-1], None)
    else:
        parent[key[-1]] = parsed.value
    places.update({key: where, **{(*key, *deep): where for deep in _deep_keys(parsed.value)}})
    return None


def _unknown_part(key: Key) -> str | None:
    """What is wrong with a path through the recipe's sections, None when it leads somewhere."""
    for depth, part in enumerate(key):
        section = section_at(key[:depth])
        if section is None:  # inside a free map such as `swift`, or below a plain value
            return None
        if part not in section:
            like = nearest(part, section)
            hint = f"; did you mean {' or '.join(like)}?" if like else ""
            return f"{'.'.join(key[: depth + 1])} is not a key of a recipe{hint}"
    return None


def _deep_keys(value: Any) -> Iterator[Key]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield (key,)
            for deep in _deep_keys(child):
                yield (key, *deep)
