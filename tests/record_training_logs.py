"""Writes the logs of the planted faults anew: tests/data/training_logs/*.log and manifest.json.

`python tests/record_training_logs.py [NAME...]`: all take two minutes, and root for the faults of
full and of read-only disks. Logs of public reports (`reported_*`) and of several processes
(`ranks_*`) are left as they are.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from support_faults import run_faults
from support_planted import PLANTED, ROOT

LOGS = Path(__file__).parent / "data" / "training_logs"
BEFORE = 12
"""Lines that are kept above the first sign of the end."""

MOST = 150
LONGEST = 900

_PACKAGES = ("ms-swift", "torch", "transformers", "peft", "trl", "datasets")


def trimmed(text: str, folder: Path) -> str:
    """The first lines and those of the end, paths of this machine replaced."""
    for path, name in (
        (str(folder / "model"), "/home/user/model"),
        (str(folder), "/home/user/runs"),
        (str(ROOT), "/home/user/palmswift"),
        (sys.prefix, "/home/user/palmswift/.venv"),
        (sys.base_prefix, "/usr"),
        (socket.gethostname(), "host"),
    ):
        text = text.replace(path, name)
    text = re.sub(r"/tmp/python-build\.[\d.]+/", "/usr/src/", text)
    lines = [line[-1] for raw in text.split("\n") if (line := raw.rstrip("\r").rsplit("\r", 1))]
    at = next(
        (n for n, line in enumerate(lines) if line.endswith("Traceback (most recent call last):")),
        len(lines),
    )
    start = max(2, min(at - BEFORE, len(lines) - BEFORE), len(lines) - MOST)
    kept = [*lines[:2], "[...]", *lines[start:]] if start > 2 else lines
    return "\n".join(line[:LONGEST] for line in kept).rstrip("\n") + "\n"


def main() -> int:
    """Run the faults that are named, or all, and write what they said; returns 0."""
    names = sys.argv[1:] or list(PLANTED)
    manifest = LOGS / "manifest.json"
    entries = json.loads(manifest.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codes = run_faults(names, folder)
        for fault_name in names:
            fault = PLANTED[fault_name]
            text = (folder / f"{fault_name}.log").read_text(encoding="utf-8", errors="replace")
            (LOGS / f"{fault_name}.log").write_text(trimmed(text, folder), encoding="utf-8")
            entries[fault_name] = {
                "kind": fault.kind,
                "phase": fault.phase,
                "exit_code": codes[fault_name],
                "made": "planted",
                "source": f"tests/support_planted.py, PLANTED[{fault_name!r}], on a CPU",
                "versions": {package: version(package) for package in _PACKAGES},
            }
    text = json.dumps(dict(sorted(entries.items())), indent=2, ensure_ascii=False)
    manifest.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
