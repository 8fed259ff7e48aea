"""Child processes that are always ended as a whole group, whatever happens to us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil


class ProcessGroup:
    """A child in a session of its own, its output in a file; leaving the block ends the group.

    `swift` starts a child of its own, which a signal to the parent leaves alive
    (swift/cli/main.py), so signals always go to the whole group.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace: float = 10.0,
    ) -> None:
        """`env` is added to our own environment; `grace` is seconds between TERM and KILL."""
        self.argv = list(argv)
        self.log = log
        self.env = {**os.environ, **(env or {})}
        self.cwd = cwd
        self.grace = grace
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ProcessGroup:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the child; its stdout and stderr are appended to `log`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The child's process id, which is also the group's and the session's."""
        if self._process is None:
            raise RuntimeError("the process was not started")
        return self._process.pid

    def poll(self) -> int | None:
        """The child's exit code (negative: the signal that ended it), None while it runs."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the child; `subprocess.TimeoutExpired` after `timeout` seconds."""
        if self._process is None:
            raise RuntimeError("the process was not started")
        return self._process.wait(timeout)

    def stop(self) -> None:
        """End the group: TERM, `grace` seconds, KILL; returns when no member is left."""
        if self._process is None:
            return
        stop_group(self.pid, self.grace, reap=self._process)


def group_members(group: int) -> list[int]:
    """Process ids of the group's members that are not zombies."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members


def stop_group(
    group: int, grace: float = 10.0, *, reap: subprocess.Popen[bytes] | None = None
) -> None:
    """TERM to the process group, wait, KILL what is left; returns when no member lives."""
    for send, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, send)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if reap is not None:
                reap.poll()
            if not group_members(group):
                return
            time.sleep(0.1)
