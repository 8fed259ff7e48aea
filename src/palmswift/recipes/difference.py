"""What two recipes say differently, key by key, their bases put under them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from palmswift.recipes.recipe import Recipe

_ABSENT = "-"
_OF_THE_FILE = {"base"}
"""Keys that say how a recipe is written, not what it is."""


class Difference(NamedTuple):
    """One key with its value in both; None where it is not said."""

    key: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.first)} -> {_shown(self.second)}"


def differences(first: Recipe, second: Recipe) -> list[Difference]:
    """The keys that differ, the first recipe's in its order, then those of the second alone."""
    one, two = (dict(_flat(recipe.model_dump(mode="json"))) for recipe in (first, second))
    return [
        Difference(key, one.get(key), two.get(key))
        for key in {**one, **two}
        if one.get(key) != two.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif prefix or key not in _OF_THE_FILE:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    if value is None:
        return _ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
