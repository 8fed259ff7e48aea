"""Packages that one test alone needs, installed by uv at the versions of constraints.txt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from palmswift.setup.indexes import pip_settings, uv_arguments, uv_variables

ROOT = Path(__file__).resolve().parents[1]


def make_environment(folder: Path, *packages: str) -> Path:
    """The Python of a new environment that has these packages, and palmswift not."""
    _uv("venv", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    _install("--python", str(python), *packages)
    return python


def _install(*words: str) -> None:
    places = uv_arguments(pip_settings(sys.executable))
    _uv("pip", "install", "-c", str(ROOT / "constraints.txt"), *places, *words)


def _uv(*words: str) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.prefix) / "bin"))
    assert uv is not None, "uv is missing: `python3 quickstart.py install --dev` brings it"
    env = {**os.environ, **uv_variables(pip_settings(sys.executable))}
    done = subprocess.run([uv, *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"uv {' '.join(words)}\n{done.stdout}{done.stderr}"
