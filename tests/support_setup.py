"""A machine for quickstart.py to set up: its own PATH, and programs that write down their words."""

from __future__ import annotations

import ast
import compileall
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]

_NEEDED = {"__init__.py", "command.py", "errors.py", "files.py", "setup", "__pycache__"}
"""What quickstart.py may use of the package before anything is installed."""

_DRIVER = """
import os, runpy, shutil, subprocess, sys
from collections import namedtuple
from pathlib import Path
settings = os.environ
sys._base_executable = settings["FAKE_PYTHON"]
if "FAKE_FREE_GIB" in settings:
    free = int(float(settings["FAKE_FREE_GIB"]) * 2**30)
    shutil.disk_usage = lambda path: namedtuple("usage", "total used free")(free, 0, free)
if "FAKE_VERSION" in settings:
    sys.version_info = (*map(int, settings["FAKE_VERSION"].split(".")), 0, "final", 0)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs quickstart.py as if Python and disk were other ones; `-I -S` leaves it no package."""

_PROGRAM = r"""
import os, sys

name, words, here = os.path.basename(sys.argv[0]), sys.argv[1:], os.path.abspath(__file__)
call = {"program": name, "words": words, "folder": os.getcwd(), "pid": os.getpid()}
call["virtual_env"] = os.environ.get("VIRTUAL_ENV")
with open(os.environ["FAKE_CALLS"], "a", encoding="utf-8") as calls:
    calls.write(repr(call) + "\n")


def copy_to(folder, *programs):
    os.makedirs(folder, exist_ok=True)
    text = open(here).read()
    for program in programs:
        with open(folder + "/" + program, "w") as stream:
            stream.write(text)
        os.chmod(folder + "/" + program, 0o755)


def make_venv(folder):
    copy_to(folder + "/bin", "python", "pytest", "ruff", "mypy")
    open(folder + "/pyvenv.cfg", "w").close()
    os.makedirs(site(folder))


def site(folder):
    return folder + "/lib/python%d.%d/site-packages" % sys.version_info[:2]


def put(folder, package, version):
    info = package.replace("-", "_") + "-" + version + ".dist-info"
    os.makedirs(site(folder) + "/" + info, exist_ok=True)


def pip_install(folder):
    if words[-1].startswith("torch=="):
        put_torch(folder, words[-1][len("torch==") :])
    if words[-1] == "uv":
        copy_to(folder + "/bin", "uv")
    if "-e" in words:
        put(folder, "palmswift", "0.1.0")
        for line in open(words[words.index("-c") + 1]):
            package, equals, rest = line.partition("==")
            if equals and package != "torch":
                put(folder, package, rest.split()[0])


def put_torch(folder, version):
    cuda = None if "+" in version else "13.0"
    if "--torch-backend" in words:
        backend = words[words.index("--torch-backend") + 1].replace("auto", "cu128")
        version, cuda = version + "+" + backend, "12.8" if backend == "cu128" else None
    put(folder, "torch", version)
    os.makedirs(site(folder) + "/torch", exist_ok=True)
    with open(site(folder) + "/torch/version.py", "w") as stream:
        stream.write(f"__version__ = {version!r}\ncuda: Optional[str] = {cuda!r}\n")


def fail_if_told():
    told = os.environ.get("FAKE_FAIL")
    if told and any(word.endswith(told) for word in words):
        sys.exit(os.environ.get("FAKE_SAYS", "it broke"))
    hold = os.environ.get("FAKE_HOLD")
    while hold and "-e" in words and os.path.exists(hold):
        import time

        time.sleep(0.02)


if name == "nvidia-smi":
    if "FAKE_SMI_ERROR" in os.environ:
        sys.exit(os.environ["FAKE_SMI_ERROR"])
    if any(word.startswith("--query-gpu") for word in words):
        print(os.environ.get("FAKE_GPU", "NVIDIA GeForce RTX 4060, 550.54, 8188, 7700, 8.9, 400"))
    else:
        print("| Driver Version: 550.54   CUDA Version: 12.4 |")
elif "--help" in words:
    print("--excludes --torch-backend")
elif words[:1] == ["venv"] or words[:2] == ["-m", "venv"]:
    make_venv(words[-1])
    if name == "python":
        put(words[-1], "pip", "24.0")
elif words[:3] == ["-m", "pip", "config"]:
    print(os.environ.get("FAKE_PIP_CONFIG", ""))
elif "install" in words:
    fail_if_told()
    python = words[words.index("--python") + 1] if name == "uv" else here
    pip_install(os.path.dirname(os.path.dirname(python)))
else:
    print(f"{name} ran", flush=True)
    fail_if_told()
    sys.exit(int(os.environ.get("FAKE_EXIT", "0")))
"""
"""uv, nvidia-smi, Python and what is in an environment, by the name it is called by."""


@functools.cache
def _compiled_package() -> Path:
    """The package with its bytecode, so that the copies are not compiled one by one."""
    folder = REPOSITORY / "src" / "palmswift"
    compileall.compile_dir(folder, quiet=1, maxlevels=0)
    compileall.compile_dir(folder / "setup", quiet=1)
    return folder


class Outcome(NamedTuple):
    """How a call of quickstart.py ended."""

    code: int
    out: str
    err: str


class FakeMachine:
    """A project folder and a PATH on which only fake programs are."""

    def __init__(self, folder: Path, *programs: str) -> None:
        """`programs` are those on PATH, of `uv` and `nvidia-smi`."""
        self.project = folder / "my 项目"
        self.path = folder / "bin"
        self.calls_file = folder / "calls.txt"
        self.settings: dict[str, str] = {}
        self.project.mkdir()
        for name in ("quickstart.py", "pyproject.toml", "constraints.txt"):
            shutil.copy(REPOSITORY / name, self.project)
        source = _compiled_package()
        shutil.copytree(
            source,
            self.project / "src" / "palmswift",
            ignore=lambda at, names: set(names) - _NEEDED if Path(at) == source else set(),
        )
        for script in ("launchers/pipeline.py", "launchers/train.py", "eval/run.py"):
            (self.project / script).parent.mkdir(exist_ok=True)
            (self.project / script).touch()
        self.path.mkdir()
        self.base_python = self.put("python")
        for program in programs:
            self.put(program)

    @property
    def venv(self) -> Path:
        """The environment that quickstart.py makes when no other is named."""
        return self.project / ".venv"

    def put(self, program: str) -> Path:
        """Put a fake program on PATH."""
        path = self.path / program
        path.write_text(f"#!{sys.executable} -IS\n{_PROGRAM}", encoding="utf-8")
        path.chmod(0o755)
        return path

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start quickstart.py with these words."""
        script = str(self.project / "quickstart.py")
        environment = {
            "PATH": str(self.path),
            "HOME": str(self.path.parent),
            "LANG": "C.UTF-8",
            "FAKE_PYTHON": str(self.base_python),
            "FAKE_CALLS": str(self.calls_file),
            **self.settings,
        }
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _DRIVER, script, *words],
            env=environment,
            cwd=cwd or self.path.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def run(self, *words: str, cwd: Path | None = None) -> Outcome:
        """Run quickstart.py with these words to its end."""
        process = self.start(*words, cwd=cwd)
        out, err = process.communicate(timeout=60)
        return Outcome(process.returncode, out, err)

    def calls(self, program: str = "") -> list[dict[str, Any]]:
        """What the fake programs were called with so far, in order."""
        if not self.calls_file.exists():
            return []
        lines = self.calls_file.read_text(encoding="utf-8").splitlines()
        calls: list[dict[str, Any]] = [ast.literal_eval(line) for line in lines]
        return [call for call in calls if program in ("", call["program"])]

    def installs(self) -> list[list[str]]:
        """The words of every `pip install`, uv's and pip's, without the option asked for help."""
        return [
            call["words"]
            for call in self.calls()
            if "install" in call["words"] and "--help" not in call["words"]
        ]

    def stamp(self) -> dict[str, Any]:
        """The stamp in the environment."""
        stamp: dict[str, Any] = json.loads((self.venv / "palmswift.json").read_text("utf-8"))
        return stamp


def value_of(words: Sequence[str], option: str) -> str | None:
    """The word after an option, None when the option is not there."""
    return words[words.index(option) + 1] if option in words else None


def is_alive(pid: int) -> bool:
    """Whether a process of ours still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
