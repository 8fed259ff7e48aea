"""The flags of the installed ms-swift as its own classes and parser have them (imports swift)."""

from __future__ import annotations

import dataclasses
import importlib
import json
from argparse import Action
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, get_args, get_type_hints

from palmswift.recipes.catalogue_static import COMMANDS
from palmswift.recipes.docstring import docstring_entries


def build() -> dict[str, Any]:
    """The catalogue of the installed ms-swift: commands by class, flags by the declaring class."""
    arguments = importlib.import_module("swift.arguments")
    commands: dict[str, list[str]] = {}
    classes: dict[str, dict[str, Any]] = {}
    for command, (name, *_) in COMMANDS.items():
        declaring = list(_declaring_classes(getattr(arguments, name)))
        commands[command] = [_label(cls) for cls in declaring]
        for cls in declaring:
            classes.setdefault(_label(cls), _own_flags(cls))
        _prove(getattr(arguments, name), [classes[label] for label in commands[command]])
    return {
        "ms_swift": version("ms-swift"),
        "transformers": version("transformers"),
        "commands": commands,
        "classes": classes,
    }


def _declaring_classes(cls: type) -> Iterator[type]:
    """The dataclasses that `cls` is made of, base first; the last that declares a field wins."""
    for parent in reversed(cls.__mro__):
        if "__dataclass_fields__" in vars(parent) and _own_names(parent):
            yield parent


def _own_names(cls: type) -> list[str]:
    declared = vars(cls).get("__annotations__", {})
    return [
        field.name for field in dataclasses.fields(cls) if field.init and field.name in declared
    ]


def _label(cls: type) -> str:
    package = cls.__module__.partition(".")[0]
    return cls.__name__ if package == "swift" else f"{package}.{cls.__name__}"


def _own_flags(cls: type) -> dict[str, Any]:
    """The flags that `cls` itself declares, as ms-swift's own parser reads them."""
    names = _own_names(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    actions = _actions(cls)
    docs = _docs(cls)
    return {name: _flag(fields[name], hints[name], actions[name], docs.get(name)) for name in names}


def _actions(cls: type) -> dict[str, Action]:
    """Parser actions by flag name; the `--no_X` twins of booleans are left out."""
    hf_argparser = importlib.import_module("transformers.hf_argparser")
    utils = importlib.import_module("swift.utils.utils")
    with utils._patch_get_type_hints():  # swift/utils/utils.py parse_args does the same
        parser = hf_argparser.HfArgumentParser([cls], add_help=False)
    return {
        action.dest: action
        for action in reversed(parser._actions)
        if f"--{action.dest}" in action.option_strings
    }


def _flag(
    field: dataclasses.Field[Any], hint: Any, action: Action, doc: str | None
) -> dict[str, Any]:
    flag: dict[str, Any] = {"kind": _kind(hint, action), "default": _default(field)}
    if action.nargs == "+":
        flag["many"] = True
    if action.choices is not None:
        flag["choices"] = [choice for choice in action.choices if choice is not None]
    aliases = [
        word for word in action.option_strings if word.replace("-", "_") != f"__{field.name}"
    ]
    if aliases:
        flag["aliases"] = sorted(aliases)
    if doc:
        flag["doc"] = doc
    return flag


def _kind(hint: Any, action: Action) -> str:
    if dict in (hint, *get_args(hint)):
        return "json"
    if action.choices is not None:
        return "choice"
    parse = action.type
    name = getattr(parse, "__name__", str(parse))
    kinds = {"string_to_bool": "bool", "int": "int", "float": "float", "str": "str"}
    return kinds.get(name, "str")


def _default(field: dataclasses.Field[Any]) -> Any:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return None
    value = getattr(value, "value", value)  # an Enum's value
    try:
        json.dumps(value)
    except TypeError:
        return repr(value)
    return value


def _docs(cls: type) -> dict[str, str]:
    """The first sentences that the docstrings of `cls` and its bases give each argument."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        found.update(docstring_entries(vars(parent).get("__doc__") or ""))
    return found


def _prove(cls: type, layers: list[dict[str, Any]]) -> None:
    """The flags put together from the layers are those that the whole class is parsed with."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    whole = {
        name: _flag(fields[name], hints[name], action, merged.get(name, {}).get("doc"))
        for name, action in _actions(cls).items()
    }
    if merged != whole:
        names = sorted({*merged, *whole})
        wrong = [(n, merged.get(n), whole.get(n)) for n in names if merged.get(n) != whole.get(n)]
        raise AssertionError(f"{cls.__name__}: the layers differ from the class: {wrong}")
