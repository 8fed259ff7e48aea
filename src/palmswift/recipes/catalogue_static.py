"""Reads the flags of a released ms-swift from its wheel, without installing or importing it.

    pip download --no-deps -d WHEELS ms-swift==4.5.3 transformers==5.16.1
    python -m palmswift.recipes.catalogue_static WHEELS

writes `catalogues/ms-swift-VERSION.json` for each ms-swift in the folder. What a training inherits
from transformers is read from the newest transformers there that the release admits. The classes
are read as syntax trees; what transformers' parser makes of a field (`hf_argparser.py`) is done
here again, and a test holds the result to the installed version's real parser.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.files import write_text
from palmswift.recipes.catalogue import CATALOGUES, patch_of, read_document, version_key
from palmswift.recipes.class_reader import ClassReader, DataClass, Sources
from palmswift.recipes.docstring import docstring_entries
from palmswift.recipes.field_reader import read_flag

COMMANDS = {
    "deploy": ("DeployArguments",),
    "eval": ("EvalArguments",),
    "export": ("ExportArguments",),
    "infer": ("InferArguments",),
    "merge-lora": ("ExportArguments",),
    "pt": ("PretrainArguments", "TrainArguments"),
    "rlhf": ("RLHFArguments",),
    "sample": ("SamplingArguments",),
    "sft": ("SftArguments", "TrainArguments"),
}
"""Each command and the class that its words are parsed into: its name now, its name in 3.12."""

_HOMES = ("swift.arguments", "swift.llm.argument")
"""The package of those classes: now, and in 3.12."""

_WHEEL = re.compile(r"(?P<name>ms_swift|transformers)-(?P<version>[\d.]+)-.*\.whl$")
_NEEDS = re.compile(r"^Requires-Dist: transformers(?P<bounds>[<>=!,.\d ]*)$", re.MULTILINE)


class Wheels(NamedTuple):
    """The downloaded releases, by version."""

    ms_swift: dict[str, Path]
    transformers: dict[str, Path]


def read_catalogue(sources: Sources, ms_swift: str, transformers: str) -> dict[str, Any]:
    """The catalogue of the sources: commands by class, flags by the class that declares them.

    ValueError: the sources lack a class that a command is parsed into.
    """
    reader = ClassReader(sources)
    home = next(home for home in _HOMES if sources.module(home) is not None)
    commands: dict[str, list[str]] = {}
    classes: dict[str, dict[str, Any]] = {}
    for command, names in COMMANDS.items():
        found = next((cls for name in names if (cls := reader.find(home, name)) is not None), None)
        if found is None:
            raise ValueError(f"ms-swift {ms_swift} has none of {', '.join(names)}")
        lineage = [cls for cls in reversed(reader.lineage(found)) if cls.fields]
        commands[command] = [cls.label for cls in lineage]
        for cls in lineage:
            if cls.label not in classes:
                classes[cls.label] = _flags(reader, cls)
    return {
        "ms_swift": ms_swift,
        "transformers": transformers,
        "commands": commands,
        "classes": classes,
    }


def _flags(reader: ClassReader, cls: DataClass) -> dict[str, Any]:
    docs: dict[str, str] = {}
    for parent in reversed(reader.lineage(cls)):
        docs.update(docstring_entries(parent.doc))
    flags = {name: read_flag(reader, cls, name, docs.get(name)) for name in cls.fields}
    return {name: flag for name, flag in flags.items() if flag is not None}


def find_wheels(folder: Path) -> Wheels:
    """The wheels of ms-swift and transformers in a folder."""
    wheels = Wheels({}, {})
    for path in sorted(folder.glob("*.whl")):
        found = _WHEEL.match(path.name)
        if found:
            kind = wheels.ms_swift if found["name"] == "ms_swift" else wheels.transformers
            kind[found["version"]] = path
    return wheels


def admitted(bounds: str, versions: Iterable[str]) -> str | None:
    """The newest of `versions` that a requirement such as `<5.17.0,>=4.33` admits."""
    limits = re.findall(r"([<>=!]+)\s*([\d.]+)", bounds)

    def fits(version: str) -> bool:
        key = version_key(version)
        return all(
            key < version_key(limit) if sign == "<" else key >= version_key(limit)
            for sign, limit in limits
            if sign in ("<", ">=")
        )

    return max(filter(fits, versions), key=version_key, default=None)


def as_text(catalogue: dict[str, Any]) -> str:
    """The catalogue as JSON with one flag a line, so that two versions can be compared by diff."""
    lines = ["{"]
    for key in ("ms_swift", "transformers", "after"):
        if key not in catalogue:
            continue
        lines.append(f'  "{key}": {json.dumps(catalogue[key])},')
    lines.append('  "commands": {')
    lines += _members(catalogue["commands"], "    ")
    lines += ["  },", '  "classes": {']
    labels = sorted(catalogue["classes"])
    for label in labels:
        lines.append(f"    {json.dumps(label)}: {{")
        lines += _members(catalogue["classes"][label], "      ")
        lines.append("    }" if label == labels[-1] else "    },")
    return "\n".join([*lines, "  }", "}", ""])


def _members(mapping: dict[str, Any], indent: str) -> list[str]:
    rows = [
        f"{indent}{json.dumps(key)}: {json.dumps(mapping[key], ensure_ascii=False, sort_keys=True)}"
        for key in sorted(mapping)
    ]
    return [f"{row}," for row in rows[:-1]] + rows[-1:]


def read_wheels(folder: Path) -> dict[str, dict[str, Any]]:
    """The catalogue of each ms-swift wheel in a folder. ValueError: its transformers is missing."""
    wheels = find_wheels(folder)
    built = {}
    for version, path in wheels.ms_swift.items():
        with zipfile.ZipFile(path) as wheel:
            metadata = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
            needs = _NEEDS.search(wheel.read(metadata).decode())
            bounds = needs["bounds"].strip() if needs else ""
            chosen = admitted(bounds, wheels.transformers)
            if chosen is None:
                raise ValueError(f"ms-swift {version} needs a wheel of transformers{bounds}")
            with zipfile.ZipFile(wheels.transformers[chosen]) as base:
                built[version] = read_catalogue(Sources([wheel, base]), version, chosen)
    return built


def write_catalogues(built: Mapping[str, dict[str, Any]], folder: Path) -> list[Path]:
    """Write the newest catalogue whole and the others as differences to it; the files written.

    Where the folder has a newer one than all of `built`, they are differences to that.
    """
    there = [path.stem.removeprefix("ms-swift-") for path in folder.glob("ms-swift-*.json")]
    newest = max([*built, *there], key=version_key)
    whole = built[newest] if newest in built else read_document(newest, folder)
    paths = []
    for version, catalogue in built.items():
        path = folder / f"ms-swift-{version}.json"
        write_text(path, as_text(catalogue if version == newest else patch_of(catalogue, whole)))
        paths.append(path)
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    """Write the catalogues of the releases in the folder that is named; returns 0."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 1:
        raise SystemExit("name the folder of the wheels")
    for path in write_catalogues(read_wheels(Path(words[0])), CATALOGUES):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
