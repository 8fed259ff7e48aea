"""Waits until the driver has let go of what a training held on the graphics cards."""

from __future__ import annotations

import shutil
import subprocess
import time

import psutil

_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.2


def computing_pids() -> set[int]:
    """Processes that the NVIDIA driver lists as computing; empty where there is no nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return set()
    try:
        done = subprocess.run(
            [program, "--query-compute-apps=pid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return {int(word) for word in done.stdout.split() if word.isdigit()}


def wait_until_released(before: set[int], *, patience: float = _PATIENCE_SECONDS) -> set[int]:
    """Return when no process that has ended is listed; those that still are after `patience`.

    `before` are those that were listed before the training: they are not ours. A process's memory
    on a card is freed a moment after it has ended. (In a container without the host's process
    numbers all would look ended; those of others are in `before`, mostly.)
    """
    deadline = time.monotonic() + patience
    while left := {pid for pid in computing_pids() - before if not psutil.pid_exists(pid)}:
        if time.monotonic() >= deadline:
            return left
        time.sleep(_POLL_SECONDS)
    return set()
