"""What ms-swift's commands can be told: every argument with its type, choices and default."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

_CHOICES_SHOWN = 8
CATALOGUES = Path(__file__).parent / "catalogues"

Kind = Literal["str", "int", "float", "bool", "choice", "json"]
"""How ms-swift's parser reads one word of an argument; `json` is a map, or a name or path."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Flag(_Table):
    """One argument, as ms-swift's own parser declares it."""

    kind: Kind
    default: Any = None
    many: bool = False
    """Takes several words: a list in a recipe."""
    choices: list[str | int | float | bool] = Field(default_factory=list)
    aliases: list[str] = Field(default_factory=list)
    doc: str = ""
    """What its docstring says first."""


class Catalogue(_Table):
    """The arguments of one ms-swift version, each stored at the class that declares it."""

    ms_swift: str
    transformers: str
    commands: dict[str, list[str]]
    """`swift` command to the classes it is parsed into, base first; the last one wins."""
    classes: dict[str, dict[str, Flag]]

    def flags(self, command: str) -> dict[str, Flag]:
        """The arguments of `swift COMMAND` by name. KeyError: no such command."""
        merged: dict[str, Flag] = {}
        for label in self.commands[command]:
            merged.update(self.classes[label])
        return merged


class Rename(_Table):
    """Where an argument of an older ms-swift went."""

    new: str
    since: str
    note: str = ""


class Renames(_Table):
    """Old argument names and old argument values."""

    names: dict[str, Rename]
    values: dict[str, dict[str, str]]


def shipped_versions() -> list[str]:
    """The ms-swift versions that a catalogue is shipped for, oldest first."""
    names = [path.stem.removeprefix("ms-swift-") for path in CATALOGUES.glob("ms-swift-*.json")]
    return sorted(names, key=_version_key)


def installed_version() -> str | None:
    """The version of the ms-swift in this environment, None without one; nothing is imported."""
    try:
        return version("ms-swift")
    except PackageNotFoundError:
        return None


@lru_cache(maxsize=4)
def load_catalogue(ms_swift: str | None = None) -> Catalogue:
    """The catalogue of a version: by default the installed one if shipped, else the newest."""
    versions = shipped_versions()
    chosen = ms_swift or installed_version()
    if chosen not in versions:
        chosen = versions[-1]
    text = (CATALOGUES / f"ms-swift-{chosen}.json").read_text(encoding="utf-8")
    return Catalogue.model_validate_json(text)


@lru_cache(maxsize=1)
def load_renames() -> Renames:
    """The table of old names and values."""
    text = (CATALOGUES / "renames.yaml").read_text(encoding="utf-8")
    return Renames.model_validate(yaml.safe_load(text))


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names in `known` that look most like `word`, best first; empty when none does."""
    return difflib.get_close_matches(word, sorted(known), n=count, cutoff=0.6)


def check_value(flag: Flag, value: object) -> str | None:
    """What is wrong with `value` for `flag`, in words; None when ms-swift's parser takes it.

    Stricter than the parser in one way: a value of another type that would only happen to read
    well as text (1.10 for a revision) is refused, since YAML has already changed it.
    """
    if flag.many:
        words = value if isinstance(value, list) else [value]
        if not words:
            return "the list is empty, and `swift` wants at least one word"
        faults = (_check_word(flag, word) for word in words)
        return next((fault for fault in faults if fault is not None), None)
    if isinstance(value, list):
        return f"takes one value, not a list of {len(value)}"
    return _check_word(flag, value)


def _check_word(flag: Flag, word: object) -> str | None:
    if flag.kind == "choice":
        # the parser compares words, so that "4" is as good as 4 (transformers/hf_argparser.py)
        if not isinstance(word, bool) and str(word) in {str(choice) for choice in flag.choices}:
            return None
        return f"{_shown(word)} is none of {_choices_shown(flag, word)}"
    if flag.kind == "json":
        return None if isinstance(word, dict | str) else f"{_shown(word)} is not a map"
    if _is_kind(flag.kind, word):
        return None
    wanted = {
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
        "str": "text",
    }[flag.kind]
    quoting = " (put it in quotes)" if flag.kind == "str" and not _nested(word) else ""
    return f"{_shown(word)} is not {wanted}{quoting}"


def _choices_shown(flag: Flag, word: object) -> str:
    choices = [str(choice) for choice in flag.choices]
    like = nearest(str(word), choices) if len(choices) > _CHOICES_SHOWN else []
    if like:
        return f"its {len(choices)} choices; the nearest are {', '.join(like)}"
    return ", ".join(choices)


def _is_kind(kind: Kind, word: object) -> bool:
    if kind == "bool":
        return isinstance(word, bool)
    if kind == "str":
        return isinstance(word, str)
    if isinstance(word, bool) or not isinstance(word, int | float):
        return False
    return isinstance(word, int) if kind == "int" else math.isfinite(word)


def _nested(word: object) -> bool:
    return isinstance(word, list | dict)


def _shown(word: object) -> str:
    if isinstance(word, bool):
        return "true" if word else "false"
    text = repr(word)
    return text if len(text) <= 60 else text[:59] + "…"


def _version_key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
