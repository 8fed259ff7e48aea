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
        """What the last install wrote: `state` (`installing` until it ended well), `extras`, ..."""
        try:
            stamp = json.loads(self._stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def write_stamp(self, state: str, **facts: Any) -> None:
        """Record how far the install is; it holds for this checkout and these requirements."""
        document = {"state": state, "project": str(PROJECT), "inputs": _inputs_hash(), **facts}
        write_json(self._stamp, document)

    def made_here(self) -> bool:
        """Whether quickstart.py made it, and so may delete it; its user may have made it too."""
        return bool(self.stamp().get("made_here")) or not (self.folder / "pyvenv.cfg").exists()

    def unusable(self) -> str:
        """Why the environment cannot be used or added to; empty when it can."""
        stamp = self.stamp()
        if not self.python.exists():
            return "its Python is gone" if stamp.get("state") == "done" else "there is none yet"
        if stamp.get("state") == "installing" and self.made_here():
            return "the last install did not come to its end"
        if stamp.get("project", str(PROJECT)) != str(PROJECT) and self.made_here():
            return f"it was made for {stamp['project']}"
        return ""

    def lacks(self, extras: frozenset[str]) -> str:
        """Why an install is needed before `extras` can be used; empty when it is not."""
        reason = self.unusable()
        if reason:
            return reason
        stamp = self.stamp()
        if stamp.get("state") != "done" or stamp.get("project") != str(PROJECT):
            return "palmswift is not installed in it"
        if stamp.get("inputs") != _inputs_hash():
            return "pyproject.toml or constraints.txt has changed"
        missing = sorted(extras - set(stamp.get("extras", [])))
        return f"without {', '.join(missing)} so far" if missing else ""

    def python_version(self) -> str:
        """The environment's Python, such as 3.11; empty when there is none."""
        names = [path.name for path in self.folder.glob("lib/python3.*")]
        return names[0][len("python") :] if names else ""

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
        """Make the folder if it is not there; refuse one that holds something else."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be made: {error.strerror}", remedy="--venv OTHER_FOLDER"
            ) from error
        ours = {self._stamp.name, self._lock.name, self.log.name}
        names = {path.name for path in self.folder.iterdir()}
        if names - ours and not names & {"pyvenv.cfg", self._stamp.name}:
            raise InputError(
                f"{self.folder} is not empty and no virtual environment",
                remedy="--venv OTHER_FOLDER",
            )

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
