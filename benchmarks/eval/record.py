"""What the evaluation benchmarks share: the record they write, a server in a process of its own."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "benchmarks" / "records"


def write_record(
    name: str,
    what: str,
    command: str,
    packages: Sequence[str],
    measured: dict[str, Any],
    *,
    room: str = "eval",
) -> Path:
    """Write `records/ROOM-NAME-DATE.json`; its path."""
    record = {
        "benchmark": f"{room}-{name}",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "what": what,
        "command": command,
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2),
            "system": platform.system(),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        **measured,
    }
    path = RECORDS / f"{room}-{name}-{record['date']}.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def cpu_model() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def fake_server(script: dict[str, Any] | None, folder: Path) -> Iterator[str]:
    """The base URL of a fake server that follows a script, gone after the block."""
    path = folder / "script.json"
    path.write_text(json.dumps(script or {}), encoding="utf-8")
    words = [sys.executable, "-m", "palmswift.eval.fake.server", str(path)]
    with serving(words) as url:
        yield url


@contextlib.contextmanager
def serving(words: Sequence[str]) -> Iterator[str]:
    """The first line that a server's command prints; the server is gone after the block."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.kill()
