"""Runs installers one after the other: timed lines on the terminal, their output in a log."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from palmswift.command import Console
from palmswift.errors import ChildError, Problem

_HEARTBEAT_SECONDS = 15.0
_TAIL_LINES = 12

HINTS = {
    r"no space left|errno 28|os error 28": "the disk is full: make room, or point UV_CACHE_DIR, "
    "PIP_CACHE_DIR and TMPDIR to a larger disk",
    r"certificate_verify_failed|invalid peer certificate|unknownissuer": "a certificate was not "
    "trusted: set SSL_CERT_FILE to the file with your organisation's certificates",
    r"dns error|name resolution|failed to resolve|failed to establish|connection (?:refused|reset)|"
    r"timed out|error sending request|network is unreachable": "no connection to the package "
    "index: check the network and HTTPS_PROXY, or name a mirror (`pip config set global.index-url "
    "URL`, which uv is given too); then call this again, finished downloads are kept",
    r"ensurepip is not|no module named '?(?:venv|ensurepip)": "this Python came without venv: "
    "`apt install python3-venv`, or install uv",
    r"python\.h: no such file|(?:cc|gcc|g\+\+|clang)'? failed|unable to execute '?\S*(?:cc|\+\+)|"
    r"no such file or directory: '\S*(?:cc|\+\+)'": "a package has to be compiled here: `apt "
    "install build-essential python3-dev`, or use Python 3.11, for which all are ready-made",
    r"requires-python|requires a different python|does not satisfy python": "a package does not "
    "support this Python: call quickstart.py with Python 3.11",
    r"permission denied|errno 13\b": "a folder may not be written: see who owns it",
    r"no matching distribution|there (?:is|are) no versions? of|no solution found": "the package "
    "index lacks a version of constraints.txt: check the mirror that pip or uv is set to",
}
"""What an installer says when it fails (a pattern, case ignored), and what to do about it."""


class Steps:
    """The installers of one install, all logged to one file."""

    def __init__(
        self, log: Path, console: Console, *, cwd: Path, keep_open: Sequence[int] = ()
    ) -> None:
        """`keep_open` are file descriptors that the children inherit."""
        self.log = log
        self.console = console
        self.cwd = cwd
        self.keep_open = keep_open

    def run(self, title: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Run one installer to its end; ChildError with the log's last lines when it fails."""
        code, start = self._execute(title, argv, env)
        if code == 0:
            return
        said = _lines(self.log, start)
        tail = "".join(f"\n    {line}" for line in said[-_TAIL_LINES:])
        raise ChildError(
            f"{title}: failed (exit code {code})",
            [Problem(f"the last lines of {self.log}:{tail}")],
            remedy=hint("\n".join(said), code),
        )

    def attempt(self, title: str, argv: Sequence[str], env: Mapping[str, str]) -> bool:
        """Run an installer that another one can stand in for; whether it succeeded."""
        code, start = self._execute(title, argv, env)
        if code:
            causes = [line for line in _lines(self.log, start) if line.strip()]
            self.console.note(f"  not possible here: {causes[-1].strip() if causes else code}")
        return code == 0

    def _execute(self, title: str, argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, int]:
        self.console.note(f"{title} ...")
        began = time.monotonic()
        with self.log.open("ab") as output:
            output.write(f"$ {_without_secrets(shlex.join(argv))}\n".encode())
            output.flush()
            start = output.tell()
            code = self._wait(argv, env, output.fileno(), began, start)
        if code == 0:
            self.console.note(f"  done in {time.monotonic() - began:.0f} s")
        return code, start

    def _wait(
        self, argv: Sequence[str], env: Mapping[str, str], output: int, began: float, start: int
    ) -> int:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=self.cwd,
            pass_fds=self.keep_open,
            start_new_session=True,
        )
        with ending(process):
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_HEARTBEAT_SECONDS)
                last = (_lines(self.log, start) or [""])[-1].strip()[:80]
                self.console.note(f"  {time.monotonic() - began:.0f} s  {last}")


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes], grace: float = 10.0) -> Iterator[None]:
    """End the child's whole process group when the block is left by an exception.

    `grace` is seconds for SIGINT, and again for SIGTERM, before SIGKILL.
    """
    try:
        yield
    except BaseException:
        for send in (signal.SIGINT, signal.SIGTERM):
            _signal_group(process, send)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
                break
        _signal_group(process, signal.SIGKILL)
        process.wait()
        raise


def hint(output: str, code: int) -> str:
    """What to do about a failed installer, by what it said; empty when that is not known."""
    for pattern, remedy in HINTS.items():
        if re.search(pattern, output, re.IGNORECASE):
            return remedy
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "it was killed, most often for want of memory: close other programs, call this again"
    return ""


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _lines(log: Path, start: int) -> list[str]:
    with log.open("rb") as stream:
        stream.seek(start)
        return stream.read().decode(errors="replace").splitlines()


def _without_secrets(text: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://***@", text)
