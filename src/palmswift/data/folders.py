"""What a user gives (files, folders, globs) to the data files that are meant, and what is not."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from palmswift.data.compressed import COMPRESSED_SUFFIXES
from palmswift.data.row import printable
from palmswift.errors import Problem

_SPLIT = re.compile(
    r"(?:^|[-_. ])(train|training|test|val|valid|validation|dev|eval|heldout|rejected)(?:[-_. ]|$)"
)
_TRAIN = {"train", "training"}

# What datasets, hubs and repositories put beside the rows.
_NO_DATA = re.compile(
    r"readme|license|licence|notice|requirements|changelog|state|dataset_infos?|dataset_dict"
    r"|config|package|cache-.*|indices"
)


class Found(NamedTuple):
    """The files that are meant, sentences on what was left out, and what cannot be found."""

    files: list[Path]
    notes: dict[Path, list[str]]
    """By the file that they are told with."""
    problems: list[Problem]


def suffix_of(path: Path) -> str:
    """The suffix that says what a file holds, in lower case: that of x.jsonl.gz is `.jsonl`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find(paths: Iterable[Path | str], known: Sequence[str]) -> Found:
    """The files that `paths` name, each once; of folders those whose suffix is `known`, sorted."""
    found = Found([], {}, [])
    seen: set[Path] = set()
    for given in paths:
        path = Path(given)
        notes: list[str] = []
        if fault := _fault_of(path):
            found.problems.append(fault)
            continue
        if path.is_dir():
            files = _in_folder(path, known, notes, found.problems)
        elif _is_pattern(path):
            root = Path(path.anchor)
            matches = root.glob(str(path.relative_to(root)))
            files = sorted(match for match in matches if match.is_file())
            if not files:
                found.problems.append(Problem("no file matches", str(path), "check the pattern"))
        else:
            files = [path]
        new = [file for file in files if file.resolve() not in seen]
        seen.update(file.resolve() for file in new)
        found.files.extend(new)
        if new and notes:
            found.notes[new[0]] = notes
    return found


def _fault_of(path: Path) -> Problem | None:
    """What is wrong with a name that no file can have, or that no report could hold."""
    try:
        str(path).encode()
        path.is_dir()
    except UnicodeEncodeError:
        return Problem("its name is not UTF-8", printable(str(path)), "rename the file")
    except (OSError, ValueError):  # too long, or with a NUL in it
        return Problem("no such file", printable(str(path)), "check the path")
    return None


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def _in_folder(
    folder: Path, known: Sequence[str], notes: list[str], problems: list[Problem]
) -> list[Path]:
    files = _walk(folder)
    usable = [file for file in files if suffix_of(file) in known]
    if not usable:
        kinds = ", ".join(known)
        what = "the folder holds no data files"
        problems.append(Problem(what, str(folder), f"give files or a folder with {kinds}"))
        return []
    others = sorted({suffix_of(file) or file.name for file in files if file not in usable})
    if others:
        notes.append(f"{folder}: files of other kinds were not read ({', '.join(others[:10])})")
    splits: dict[str, list[Path]] = {}
    for file in usable:
        splits.setdefault(_split_of(file.relative_to(folder)), []).append(file)
    chosen = next((name for name in ("train", "") if name in splits), "")
    if chosen not in splits and len(splits) > 1:
        names = ", ".join(sorted(splits))
        what = f"the folder holds {names} but nothing to train on"
        problems.append(Problem(what, str(folder), "name the files to read"))
        return []
    chosen = chosen if chosen in splits else next(iter(splits))
    for name in sorted(splits.keys() - {chosen}):
        files = splits[name]
        shown = ", ".join(str(file.relative_to(folder)) for file in files[:3])
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        kept = "only what is named train" if chosen else "what is named after another use"
        verb = "was read" if chosen else "was not read"
        notes.append(f"{folder}: {kept} {verb}; left out: {shown}{more}")
    return splits[chosen]


def _walk(folder: Path) -> list[Path]:
    """The files below a folder, in the order of their names; hidden ones and papers left out."""
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        files += [
            Path(root, name)
            for name in sorted(names)
            if not name.startswith(".") and not _NO_DATA.fullmatch(name.split(".")[0].lower())
        ]
    return sorted(files)


def _split_of(relative: Path) -> str:
    """`train`, the name of another split, or nothing, as the file or a folder of it is named."""
    for part in (relative.name.split(".")[0], *reversed(relative.parts[:-1])):
        if found := _SPLIT.search(part.lower()):
            return "train" if found.group(1) in _TRAIN else found.group(1)
    return ""
