"""Runs a command of this repository from a folder of wheels, where nothing is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def install(wheels: Path, target: Path, packages: Sequence[str] = ("palmswift[train,gpu]",)) -> int:
    """pip's exit code; `target` becomes a folder for PYTHONPATH. The network is not asked."""
    offline = ["--no-index", "--find-links", str(wheels), "--target", str(target)]
    pip = [sys.executable, "-m", "pip", "install", *offline, *packages]
    return subprocess.run(pip, check=False).returncode


def run_from(target: Path, words: Sequence[str]) -> int:
    """The exit code of `python WORDS`, run in the repository with what was installed."""
    path = [str(target), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        # a target has no `swift` beside this Python
        "PALMSWIFT_SWIFT": f"{sys.executable} -m swift.cli.main",
    }
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=env, check=False).returncode
