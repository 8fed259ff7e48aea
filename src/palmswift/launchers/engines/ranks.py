"""The output of a node's further processes, which torchrun keeps in files of their own."""

from __future__ import annotations

from pathlib import Path

from palmswift.launchers.diagnosis import log_tail
from palmswift.launchers.engines.arguments import RANK_LOGS

_QUOTED_LINES = 40


def rank_logs(logs: Path) -> dict[int, list[Path]]:
    """The files of the last attempt, by the process's number on this node."""
    attempts = list((logs / RANK_LOGS).glob("*/attempt_*"))
    if not attempts:
        return {}
    last = max(attempts, key=lambda path: path.stat().st_mtime_ns)
    return {
        int(folder.name): sorted(folder.glob("*.log"))
        for folder in sorted(last.iterdir())
        if folder.name.isdecimal()
    }


def quote_rank_logs(logs: Path, log: Path) -> None:
    """Append the last lines of each further process to the training's log.

    A process that failed is often not the first, whose output alone stands there; what is known of
    failures is looked for in that log.
    """
    found = rank_logs(logs)
    if not found:
        return
    with log.open("a", encoding="utf-8") as file:
        for rank, files in found.items():
            for path in files:
                if lines := log_tail(path, _QUOTED_LINES):
                    file.write(f"\n--- process {rank}, {path.name} ---\n")
                    file.write("\n".join(lines) + "\n")
