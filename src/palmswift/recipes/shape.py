"""Says what is wrong with a recipe's keys and types, in a user's words instead of pydantic's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from palmswift.errors import Problem
from palmswift.recipes.catalogue import nearest
from palmswift.recipes.recipe import Recipe
from palmswift.recipes.yaml_text import Key


def section_at(key: Key) -> list[str] | None:
    """The keys that the recipe's section at `key` knows; None where any key may stand, or none."""
    model: type[BaseModel] | None = Recipe
    for part in key:
        field = model.model_fields.get(part) if model else None
        model = _model_of(field.annotation) if field else None
    return sorted(model.model_fields) if model else None


def shape_problems(values: Mapping[str, Any], place: Callable[[Key], str]) -> dict[Key, Problem]:
    """Unknown keys, missing keys and wrong types of a recipe, by key."""
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        by_key: dict[Key, list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            by_key.setdefault(_known_part(detail, values), []).append(detail)
        return {key: _problem(key, details, values, place) for key, details in by_key.items()}
    return {}


def _known_part(detail: ErrorDetails, values: Mapping[str, Any]) -> Key:
    """The error's location without the list indices and union branches that pydantic appends."""
    key: Key = ()
    value: Any = values
    for part in detail["loc"]:
        if isinstance(value, Mapping) and part in value:
            key, value = (*key, str(part)), value[part]
        elif detail["type"] == "missing":
            key, value = (*key, str(part)), None
        else:
            break
    return key


def _problem(
    key: Key,
    details: list[ErrorDetails],
    values: Mapping[str, Any],
    place: Callable[[Key], str],
) -> Problem:
    name = ".".join(key)
    first = details[0]
    kind = first["type"]
    if kind == "missing":
        return Problem(f"{name} is missing", place(key), f"add `{name}:`")
    if kind == "extra_forbidden":
        known = section_at(key[:-1]) or []
        like = nearest(key[-1], known)
        remedy = f"did you mean {' or '.join(like)}?" if like else f"known: {', '.join(known)}"
        return Problem(f"{name} is not a key of a recipe", place(key), remedy)
    if kind == "value_error":
        return Problem(f"{name}: {first['msg'].removeprefix('Value error, ')}", place(key))
    value = _value_at(key, values)
    if value is None:
        remedy = "give it a value, or take the line away"
        return Problem(f"{name} has no value", place(key), remedy)
    if len(details) > 1:
        kinds = "text, a number, true, false, a list of one kind, or a map"
        return Problem(f"{name} is none of {kinds}: {_shown(value)}", place(key))
    message = first["msg"][:1].lower() + first["msg"][1:]
    return Problem(f"{name}: {message}, not {_shown(value)}", place(key))


def _value_at(key: Key, values: Mapping[str, Any]) -> Any:
    value: Any = values
    for part in key:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The section's model in `Section` or `Section | None`."""
    for candidate in (annotation, *get_args(annotation)):
        # Python 3.10 calls list[str] a type, which issubclass then refuses
        plain = isinstance(candidate, type) and get_origin(candidate) is None
        if plain and issubclass(candidate, BaseModel):
            return cast("type[BaseModel]", candidate)
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
