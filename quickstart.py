"""Sets palmswift up on a machine that has nothing but a Python, and runs it there.

    python3 quickstart.py demo        train, serve and test a small model on this machine
    python3 quickstart.py test        all checks and tests
    python3 quickstart.py status      what is installed, what is wrong, how to mend it
    python3 quickstart.py --help      the other commands

The environment is made in .venv when it is missing. This file has the syntax of Python 3.6, so that
a Python without support gets a message and no SyntaxError; the commands are in
src/palmswift/setup, which needs the standard library alone.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.10")  # in the order in which they are proposed


def refusal() -> str:
    """Why palmswift cannot run here and what to do; empty when it can."""
    if os.name != "posix":
        return (
            "palmswift runs on Linux and macOS.\n"
            "  -> on Windows: `wsl --install`, then call quickstart.py in that Linux"
        )
    if f"{sys.version_info[0]}.{sys.version_info[1]}" in SUPPORTED:
        return ""
    words = " ".join(map(shlex.quote, sys.argv))
    this = f"this is {sys.version.split()[0]} ({sys.executable})"
    return f"palmswift needs Python 3.10, 3.11 or 3.12; {this}.\n" + remedy(words)


def remedy(words: str) -> str:
    """How to call quickstart.py (`words`) with a supported Python."""
    for path in filter(None, (shutil.which("python" + version) for version in SUPPORTED)):
        # A version manager's shim is on PATH for Pythons that it does not have.
        if subprocess.call([path, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            return f"  -> this machine has one: {shlex.quote(path)} {words}"
    return (
        "  -> get one with any of these, then call quickstart.py with it:\n"
        f"       uv python install 3.11; uv run --no-project --python 3.11 {words}\n"
        "       conda create -n palmswift python=3.11; conda activate palmswift\n"
        "       apt install python3 python3-venv       (Debian 12, Ubuntu 22.04 and 24.04)\n"
        "       brew install python@3.11               (macOS)"
    )


if __name__ == "__main__":
    message = refusal()
    if message:
        sys.stderr.write("error: " + message + "\n")
        raise SystemExit(2)
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
    from palmswift.setup.commands import main

    raise SystemExit(main())
