"""The virtual environment: where it is, what is in it, whether its install came to its end."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palmswift.command import Console
from palmswift.errors import InputError
from palmswift.files import write_json

PROJECT = Path(__file__).resolve().parents[3]
"""The checkout."""

CONSTRAINTS = PROJECT / "constraints.txt"
"""The versions that palmswift is tested with."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The Python that a new environment gets: the one that runs this."""


def tested_versions() -> dict[str, set[str]]:
    """The versions in constraints.txt by package (more than one where Pythons differ)."""
    tested: dict[str, set[str]] = {}
    text = CONSTRAINTS.read_text(encoding="utf-8")
    for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text):
        tested.setdefault(name, set()).add(version)
    return tested


class Environment:
    """A virtual environment that quickstart.py made or was pointed at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.bin = self.folder / "bin"
        self.python = self.bin / "python"
        self.log = self.folder / "install.log"
        self._stamp = self.folder / "palmswift.json"
        self._lock = self.folder / ".palmswift.lock"

    def stamp(self) -> dict[str, Any]:
        """What the last install wrote; `state` is `installing` until it ended well."""
        try:
            stamp = json.loads(self._stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def write_stamp(self, state: str, **facts: Any) -> None:
        """Record how far the install is; it holds for this checkout and these requirements."""
        document = {"state": state, "project": str(PROJECT), "inputs": _inputs_hash(), **facts}
        write_json(self._stamp, document)

    def unusable(self) -> str:
        """Why the environment has to be made anew; empty when it can be used or added to."""
        stamp = self.stamp()
        if not stamp and not (self.folder / "pyvenv.cfg").exists():
            return "there is none yet"
        if stamp and stamp.get("state") != "done":
            return "the last install did not come to its end"
        if stamp and stamp.get("project") != str(PROJECT):
            return f"it was made for {stamp.get('project')}"
        if not self.python.exists():
            return "its Python is gone"
        return ""

    def lacks(self, extras: frozenset[str]) -> str:
        """Why an install is needed before `extras` can be used; empty when it is not."""
        reason = self.unusable()
        if reason:
            return reason
        stamp = self.stamp()
        if not stamp:
            return "palmswift is not installed in it"
        if stamp.get("inputs") != _inputs_hash():
            return "pyproject.toml or constraints.txt has changed"
        missing = sorted(extras - set(stamp.get("extras", [])))
        return f"without {', '.join(missing)} so far" if missing else ""

    def packages(self) -> dict[str, str]:
        """Installed versions by normalised package name, read from the folder names alone."""
        found = {}
        for info in self.folder.glob("lib/python*/site-packages/*.dist-info"):
            name, _, version = info.name[: -len(".dist-info")].rpartition("-")
            found[re.sub(r"[-_.]+", "-", name).lower()] = version
        return found

    def torch_cuda(self) -> str:
        """The CUDA version that the installed torch was built with; empty for a CPU build."""
        for path in self.folder.glob("lib/python*/site-packages/torch/version.py"):
            text = path.read_text(encoding="utf-8")
            found = re.search(r"(?m)^cuda\b.*= *['\"]([\d.]+)['\"]", text)
            if found:
                return found.group(1)
        return ""

    def variables(self) -> dict[str, str]:
        """The process environment in which the environment's programs come first on PATH."""
        path = os.pathsep.join([str(self.bin), os.environ.get("PATH", os.defpath)])
        ours = {"VIRTUAL_ENV": str(self.folder), "PATH": path, "PYTHONUTF8": "1"}
        return {k: v for k, v in os.environ.items() if k != "PYTHONHOME"} | ours

    def claim(self) -> None:
        """Refuse a folder that holds something else; make it if it is not there."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is not a folder", remedy="--venv OTHER_FOLDER")
        ours = {self._stamp.name, self._lock.name, self.log.name}
        names = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        if names - ours and not names & {"pyvenv.cfg", self._stamp.name}:
            raise InputError(
                f"{self.folder} is not empty and no virtual environment",
                remedy="--venv OTHER_FOLDER",
            )
        self.folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Delete all but the lock that is being held."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self._lock:
                path.unlink()

    @contextlib.contextmanager
    def locked(self, console: Console) -> Iterator[int]:
        """Hold the environment for one install; gives the lock's file descriptor.

        The installers inherit the descriptor, so that after a kill of ours the next install waits
        until they have ended too.
        """
        with self._lock.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.note(f"another install into {self.folder} is running; waiting for its end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()


def _inputs_hash() -> str:
    texts = ((PROJECT / "pyproject.toml").read_bytes(), CONSTRAINTS.read_bytes())
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]
