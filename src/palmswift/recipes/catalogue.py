"""What ms-swift's commands can be told: every argument with its type, choices and default."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


@lru_cache(maxsize=1)
def shipped_versions() -> list[str]:
    """The ms-swift versions that a catalogue is shipped for, oldest first."""
    names = [path.stem.removeprefix("ms-swift-") for path in CATALOGUES.glob("ms-swift-*.json")]
    return sorted(names, key=version_key)


@lru_cache(maxsize=1)
def installed_version() -> str | None:
    """The version of the ms-swift in this environment, None without one; nothing is imported."""
    try:
        return version("ms-swift")
    except PackageNotFoundError:
        return None


class Choice(NamedTuple):
    """The catalogue to check against, and why it is not that of the installed version."""

    version: str
    remark: str = ""


def chosen_version() -> Choice:
    """The installed version's catalogue, else its minor line's, else the newest."""
    installed, shipped = installed_version(), shipped_versions()
    if installed in shipped:
        return Choice(installed)
    if installed is None:
        return Choice(shipped[-1], f"no ms-swift is installed; checked for {shipped[-1]}")
    line = [
        version for version in shipped if version_key(version)[:2] == version_key(installed)[:2]
    ]
    nearest_known = line[-1] if line else shipped[-1]
    remark = f"ms-swift {installed} is installed, whose arguments are not known here;"
    return Choice(nearest_known, f"{remark} checked for {nearest_known}")


def load_catalogue(ms_swift: str | None = None) -> Catalogue:
    """The catalogue of a version, by default `chosen_version`'s; no other one is read whole.

    KeyError: none is shipped for it.
    """
    version_name = ms_swift or chosen_version().version
    if version_name not in shipped_versions():
        raise KeyError(version_name)
    return _read_catalogue(version_name)


@lru_cache(maxsize=4)
def _read_catalogue(ms_swift: str) -> Catalogue:
    return Catalogue.model_validate(read_document(ms_swift))


def read_document(ms_swift: str, folder: Path = CATALOGUES) -> dict[str, Any]:
    """A version's catalogue as JSON has it, put together where it is stored as a difference."""
    text = (folder / f"ms-swift-{ms_swift}.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    after = document.pop("after", None)
    return document if after is None else _patched(read_document(after, folder), document)


def _patched(whole: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The older catalogue that `patch` makes of a whole one; None takes a flag away."""
    classes: dict[str, Any] = whole["classes"]
    for label, flags in patch["classes"].items():
        merged = {**classes.get(label, {}), **flags}
        kept = {name: flag for name, flag in merged.items() if flag is not None}
        classes[label] = kept
    commands = {**whole["commands"], **patch["commands"]}
    used = {label for labels in commands.values() for label in labels}
    return {
        **patch,
        "commands": commands,
        "classes": {label: classes.get(label, {}) for label in used},
    }


def patch_of(older: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """What `_patched` makes the older catalogue of, out of the whole one."""
    classes: dict[str, Any] = {}
    for label, flags in older["classes"].items():
        known = whole["classes"].get(label, {})
        changed = {name: flag for name, flag in flags.items() if known.get(name) != flag}
        gone = {name: None for name in known if name not in flags}
        if changed or gone:
            classes[label] = {**changed, **gone}
    commands = {
        command: labels
        for command, labels in older["commands"].items()
        if whole["commands"].get(command) != labels
    }
    return {
        "ms_swift": older["ms_swift"],
        "transformers": older["transformers"],
        "after": whole["ms_swift"],
        "commands": commands,
        "classes": classes,
    }


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


def version_key(text: str) -> tuple[int, ...]:
    """A version's numbers, by which versions are in order."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
