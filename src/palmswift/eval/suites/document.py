"""YAML files as pydantic models, whose mistakes are told all at once and by line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from palmswift.errors import InputError, Problem
from palmswift.recipes.yaml_text import parse

Model = TypeVar("Model", bound=BaseModel)
Key = tuple[str | int, ...]


class Document(NamedTuple):
    """A parsed YAML file and the line (from 1) of every key and list item in it."""

    path: Path
    value: Any
    lines: dict[Key, int]

    def where(self, key: Key) -> str:
        """`file:line (key)` of a key, or of the nearest key around it that stands in the file."""
        known = key
        while known and known not in self.lines:
            known = known[:-1]
        name = ".".join(str(part) for part in key)
        place = f"{self.path}:{self.lines.get(known, 1)}"
        return f"{place} ({name})" if name else place


def read_yaml(path: Path) -> Document:
    """The YAML file at `path`; InputError when it cannot be read, or a key stands twice in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", remedy=_there_is(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as UTF-8 text: {error}") from error
    parsed = parse(text, str(path))
    if parsed.problems:
        raise InputError(f"{path}: not readable", parsed.problems)
    lines: dict[Key, int] = {}
    _number(yaml.compose(text, Loader=yaml.SafeLoader), (), lines)
    return Document(path, parsed.value, lines)


def _number(node: yaml.Node | None, key: Key, lines: dict[Key, int]) -> None:
    """Note the line of each key and list item; recipes.yaml_text numbers keys alone."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, name.value)
            lines[inner] = name.start_mark.line + 1
            _number(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            item = (*key, index)
            lines[item] = value.start_mark.line + 1
            _number(value, item, lines)


def validated(model: type[Model], document: Document, known_keys: Iterable[str]) -> Model:
    """The document as `model`; InputError with every mistake and its line.

    `known_keys` are the names that a mistyped key may have meant.
    """
    if not isinstance(document.value, dict):
        raise InputError(f"{document.path}: a map of keys is expected, as in the shipped examples")
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        names = list(known_keys)
        problems = [_problem(details, document, names) for details in error.errors()]
        raise InputError(f"{document.path}: {len(problems)} mistake(s)", problems) from error


def _problem(details: ErrorDetails, document: Document, names: list[str]) -> Problem:
    location: Key = ()
    last = details["loc"][-1] if details["loc"] else ""
    for part in details["loc"]:
        # A discriminated union adds its tag to the location; a tag is no key of the file.
        if (*location, part) in document.lines or part == last:
            location = (*location, part)
    where = document.where(location)
    if details["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(last), [n for n in names if n != last], n=1)
        return Problem(f"unknown key `{last}`", where, f"did you mean `{near[0]}`?" if near else "")
    if details["type"] == "missing":
        return Problem(f"`{last}` is missing", where)
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "string_type":
        return Problem(f"{message}, not {details['input']!r}", where, "put it in quotes")
    return Problem(message, where)


def _there_is(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or names[:5]
    return f"in {path.parent} there is: {', '.join(near)}" if near else ""
