"""Which llama.cpp is used: the user's own where it is told or on the PATH, else packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from palmswift.errors import InputError
from palmswift.export.llama_cpp.fetch import PACKAGE, SCRIPT, VERSION, fetched_converter

VARIABLE = "LLAMA_CPP"
"""Environment variable that names a checkout, a build or an unpacked release of llama.cpp."""

EXTRA = "pip install 'palmswift[gguf]'"
_QUANTISER, _SERVER = "cyllama", "xllamacpp"
"""Packages with prebuilt llama.cpp: the one has `llama_model_quantize`, the other the server."""


class Tool(NamedTuple):
    """A program, and where it is from, in words for people and for the manifest."""

    argv: list[str]
    origin: str


def own_folder(given: Path | None) -> Path | None:
    """The user's llama.cpp; `InputError` when what was told is no folder of it."""
    told = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if told is None:
        return None
    folder = told.expanduser().absolute()
    if not any(_parts(folder)):
        raise InputError(
            f"{folder} is no llama.cpp: it has no {SCRIPT}, llama-quantize or llama-server",
            remedy="name a checkout, its build folder or an unpacked release "
            f"(--llama-cpp DIR, or {VARIABLE})",
        )
    return folder


def _parts(folder: Path) -> Iterator[Path]:
    if (folder / SCRIPT).is_file():
        yield folder / SCRIPT
    for name in ("llama-quantize", "llama-server"):
        if found := _program(folder, name):
            yield Path(found)


def _program(folder: Path | None, name: str) -> str | None:
    """A program of llama.cpp in a checkout, a build or a release; on the PATH without a folder."""
    if folder is None:
        return shutil.which(name)
    places = (folder / "build" / "bin", folder / "bin", folder)
    return shutil.which(name, path=os.pathsep.join(map(str, places)))


def converter(own: Path | None, note: Callable[[str], object]) -> Tool:
    """The folder of `convert_hf_to_gguf.py`, as the only word of `argv`."""
    if own is not None and (own / SCRIPT).is_file():
        return Tool([str(own)], str(own))
    return Tool([str(fetched_converter(note))], f"llama.cpp in {PACKAGE} {VERSION}")


def quantiser(own: Path | None) -> Tool:
    """What takes llama-quantize's arguments; `InputError` when there is none."""
    found = _either(own, "llama-quantize", _QUANTISER, "quantise_worker")
    if found is None:
        raise InputError(
            "nothing here can quantise to GGUF: neither llama-quantize nor the package cyllama",
            remedy=f"{EXTRA}, or --llama-cpp DIR; f16, bf16 and f32 need neither",
        )
    return found


def require_reader() -> None:
    """`InputError` where no file could be looked at: the package `gguf` is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError("GGUF needs the package gguf, which is not here", remedy=EXTRA)


def server(own: Path | None) -> Tool | None:
    """What takes llama-server's arguments, None when there is none."""
    return _either(own, "llama-server", _SERVER, "server_worker")


def _either(own: Path | None, program: str, package: str, worker: str) -> Tool | None:
    for folder in dict.fromkeys((own, None)):
        if path := _program(folder, program):
            return Tool([path], path)
    if importlib.util.find_spec(package) is None:
        return None
    module = f"{__name__.rpartition('.')[0]}.{worker}"
    try:
        told = version(package)
    except PackageNotFoundError:
        told = ""
    return Tool([sys.executable, "-m", module], f"{package} {told}".strip())
