"""Ending a server: every process of it, those outside its group too, and proof that it is gone."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NamedTuple

import psutil

from palmswift.errors import ChildError
from palmswift.process import group_members, stop_group


class Ended(NamedTuple):
    """What stopping a server ended and set free."""

    processes: int
    memory_mib: int
    """Resident memory of its processes before the end, shared pages counted in each."""

    def sentence(self, name: str, port: int) -> str:
        """What a user is told."""
        return (
            f"stopped {name}: {self.processes} processes ended, {self.memory_mib:,} MiB of memory "
            f"and port {port} are free"
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
    _, left = psutil.wait_procs(processes, timeout=5.0)
    living = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    if living or group_members(group):
        names = ", ".join(f"{p.pid} ({p.name()})" for p in living) or f"group {group}"
        raise ChildError(
            f"processes of the server on port {port} survived KILL: {names}",
            remedy="they hang in the driver or the file system; nvidia-smi and dmesg say more",
        )
    return Ended(len(processes), memory >> 20)


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
