"""llama.cpp's converter, fetched once from the pinned source package that carries it.

No package installs `convert_hf_to_gguf.py`; the source package of llama-cpp-python holds all of
llama.cpp. It is downloaded from wherever pip is set to, compared with the hash of the version that
this was tested with, and only the converter, its `gguf` library and the licence (MIT) are kept.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests

from palmswift.errors import ChildError
from palmswift.files import locked
from palmswift.setup.indexes import pip_settings, uv_arguments, uv_variables

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
"""Of the source package of that version."""

SCRIPT = "convert_hf_to_gguf.py"
_KEPT = re.compile(
    r"^[^/]+/vendor/llama\.cpp/(LICENSE|convert_hf_to_gguf\.py|(?:conversion|gguf-py/gguf)/.+\.py)$"
)
_WHERE = re.compile(r"""\bsdist = \{ (?:url|path) = "([^"]+)\"""")
_SECONDS = (10.0, 60.0)
_CHUNK = 1 << 20


def cache_dir() -> Path:
    """Where tools are kept that all projects of this user share."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "palmswift"


def fetched_converter(note: Callable[[str], object]) -> Path:
    """The folder with the pinned converter; fetched when it is not there yet.

    `ChildError` when it could not be had.
    """
    folder = cache_dir() / f"llama.cpp-of-{PACKAGE}-{VERSION}"
    if (folder / SCRIPT).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock", wait=True):
            if not (folder / SCRIPT).is_file():  # else another process was faster
                _fetch(folder, note)
    except OSError as error:
        raise _failed(f"{folder.parent} cannot be written: {error}") from error
    return folder


def _fetch(folder: Path, note: Callable[[str], object]) -> None:
    address = _address()
    note(f"fetch    llama.cpp's converter, once (77 MB, {PACKAGE} {VERSION})")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        archive = _downloaded(address, Path(scratch) / "source.tar.gz")
        made = unpack(archive, Path(scratch) / "converter")
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)


def unpack(archive: Path, folder: Path, digest: str = SHA256) -> Path:
    """Write the converter's files out of the source package into `folder`.

    `ChildError`: the archive is another one than was tested, or holds no converter.
    """
    if _sha256(archive) != digest:
        raise _failed(f"{archive.name} is not the {PACKAGE} {VERSION} that was tested")
    with tarfile.open(archive, "r:gz") as source:
        for name, member in _members(source):
            stream = source.extractfile(member)
            if stream is not None:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(stream.read())
    if not (folder / SCRIPT).is_file():
        raise _failed(f"{archive.name} holds no {SCRIPT}")
    return folder


def _members(source: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files that are kept, by their path in llama.cpp."""
    for member in source:
        found = _KEPT.match(member.name)
        if found and member.isfile() and ".." not in member.name.split("/"):
            yield found.group(1), member


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _address() -> str:
    """Where the source package lies, as the package index says that pip is set to."""
    settings = pip_settings(sys.executable)
    beside = Path(sys.executable).with_name("uv")
    words = [str(beside) if beside.is_file() else "uv", "pip", "compile", "-", "--no-deps", "-q"]
    words += ["--no-header", "--format", "pylock.toml", "--no-binary", PACKAGE]
    words += uv_arguments(settings)
    try:
        done = subprocess.run(
            words,
            input=f"{PACKAGE}=={VERSION}\n",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **uv_variables(settings)},
            timeout=300,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(f"uv (pip install uv) does not say where it lies: {error}") from error
    found = _WHERE.search(done.stdout)
    if done.returncode or found is None:
        last = (done.stderr.strip() or done.stdout.strip() or "no source package").splitlines()[-1]
        raise _failed(f"no package index has it: {last}"[:400])
    return found.group(1)


def _downloaded(address: str, target: Path) -> Path:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return Path(url2pathname(parts.path))
    certificate = pip_settings(sys.executable).get("cert")
    try:
        with (
            requests.get(
                address,
                stream=True,
                timeout=_SECONDS,
                verify=" ".join(certificate) if certificate else True,
            ) as reply,
            target.open("wb") as stream,
        ):
            reply.raise_for_status()
            for chunk in reply.iter_content(_CHUNK):
                stream.write(chunk)
    except requests.RequestException as error:
        raise _failed(f"the download failed: {type(error).__name__}: {error}"[:400]) from error
    return target


def _failed(why: str) -> ChildError:
    return ChildError(
        f"llama.cpp's converter could not be fetched: {why}",
        remedy="give a checkout of llama.cpp: --llama-cpp DIR, or LLAMA_CPP in the environment",
    )
