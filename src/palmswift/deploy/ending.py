"""Ending a server: every process of it, those outside its group too, and proof that it is gone."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import psutil

from palmswift.process import family, stop_group


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


def end_server(group: int, grace: float = 10.0) -> Ended:
    """End the process group and what its members started outside it, and look that none is left.

    `ChildError` when a process survived KILL. A port that the group listened on is free then.
    """
    processes = family(group)
    memory = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            memory += process.memory_info().rss
    stop_group(group, grace)
    return Ended(len(processes), memory >> 20)
