"""How many processes the system has killed for want of memory, by its own counters."""

from __future__ import annotations

import re
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def oom_kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Kills counted so far in our own control group, or else on the whole machine; None: not told.

    Two readings, before and after, tell what happened between. cgroup v2 counts in memory.events,
    v1 in memory.oom_control, both for the groups below as well; Linux as a whole in /proc/vmstat.
    """
    for file in (*_group_files(proc, cgroups), proc / "vmstat"):
        try:
            found = re.search(r"^oom_kill (\d+)$", file.read_text(encoding="ascii"), re.M)
        except (OSError, ValueError):
            continue
        if found:
            return int(found[1])
    return None


def _group_files(proc: Path, cgroups: Path) -> list[Path]:
    """Where our group's counters may be: by its path, or at the root that a container is shown."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if controllers == "":
            files += [cgroups / inside / "memory.events", cgroups / "memory.events"]
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            files += [root / inside / "memory.oom_control", root / "memory.oom_control"]
    return files
