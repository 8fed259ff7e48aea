"""Ending a server: every process of it, those outside its group too, and proof that it is gone."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import psutil

from palmswift.errors import ChildError
from palmswift.process import group_members, stop_group

_KILL_SECONDS = 5.0
"""How long a killed process may take to be gone."""


class Ended(NamedTuple):
    """What stopping a server ended and set free."""

    processes: int
    memory_mib: int
    """Resident memory of its processes before the end, shared pages counted in each."""

    def sentence(self, name: str, port: int) -> str:
        """What a user is told."""
        ended = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return (
            f"stopped {name}: {ended} ended, {self.memory_mib:,} MiB of memory and port {port} "
            "are free"
        )


def end_server(group: int, port: int, grace: float = 10.0) -> Ended:
    """End the process group and what its members started outside it, then look that none is left.

    `ChildError` when a process survived KILL. A port that `group` listened on is free then.
    """
    processes = _family(group)
    memory = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            memory += process.memory_info().rss
    stop_group(group, grace)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running():
                process.kill()
    deadline = time.monotonic() + _KILL_SECONDS
    while living := [process for process in processes if _lives(process)]:
        if time.monotonic() > deadline:
            names = ", ".join(str(process.pid) for process in living)
            raise ChildError(
                f"processes of the server on port {port} survived KILL: {names}",
                remedy="they hang in a driver or a file system; dmesg and nvidia-smi say more",
            )
        time.sleep(0.05)
    return Ended(len(processes), memory >> 20)


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie holds nothing, and its parent may never collect it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _family(group: int) -> list[psutil.Process]:
    """The group's members and their descendants (vLLM's workers open groups of their own)."""
    found: dict[int, psutil.Process] = {}
    for pid in group_members(group):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            found[pid] = process
            found.update((child.pid, child) for child in process.children(recursive=True))
    return list(found.values())


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """No second Ctrl-C, SIGTERM or closed terminal cuts the ending of processes short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
