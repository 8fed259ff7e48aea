"""How long commands take to start, as a ratio to an empty Python.

python benchmarks/frontend/bench.py

Each round runs `python -c pass` and every command once, in turn, so that a busy moment falls on
all alike; the median of the rounds is kept. The record is benchmarks/records/frontend-DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "launchers/train.py --help",
    "launchers/train.py --recipe qwen3_8b_4bit --dry-run",
    "launchers/plan.py --recipe qwen3_8b_4bit",
    "-m palmswift recipes list",
)
"""Words after `python`, run in the root of the checkout."""

BASELINE = "-c pass"


class Timing(NamedTuple):
    """Seconds from start to exit."""

    median: float
    fastest: float
    slowest: float


def main(argv: Sequence[str] | None = None) -> int:
    """Time the commands and write the record; 1 when a command fails."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--command", action="append", help="words after `python`, in place of ours")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    arguments = parser.parse_args(argv)
    commands = tuple(arguments.command or COMMANDS)
    for command in commands:
        finished = _run(command)
        if finished.returncode != 0:
            sys.stderr.write(f"python {command} failed:\n{finished.stderr}")
            return 1
    timings = measure((BASELINE, *commands), arguments.rounds)
    record = _record(timings, arguments.rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"frontend-{record['date']}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for command, row in record["commands"].items():
        print(f"{row['median_s']:.3f} s  {row['ratio']:5.1f} x  python {command}")
    print(path)
    return 0


def measure(commands: Sequence[str], rounds: int) -> dict[str, Timing]:
    """Each command's wall time over the interleaved rounds, by command."""
    seconds: dict[str, list[float]] = {command: [] for command in commands}
    for _ in range(rounds):
        for command in commands:
            begin = time.perf_counter()
            _run(command)
            seconds[command].append(time.perf_counter() - begin)
    return {
        command: Timing(statistics.median(taken), min(taken), max(taken))
        for command, taken in seconds.items()
    }


def _run(command: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *shlex.split(command)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def _record(timings: dict[str, Timing], rounds: int) -> dict[str, Any]:
    empty = timings[BASELINE].median
    return {
        "benchmark": "frontend",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "what": "wall time from start to exit, interleaved rounds, median",
        "command": "python benchmarks/frontend/bench.py",
        "rounds": rounds,
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("pydantic", "PyYAML", "Jinja2")},
        },
        "commands": {
            command: {
                "median_s": round(timing.median, 4),
                "fastest_s": round(timing.fastest, 4),
                "slowest_s": round(timing.slowest, 4),
                "ratio": round(timing.median / empty, 2),
            }
            for command, timing in timings.items()
        },
    }


def machine() -> dict[str, Any]:
    """What a record says of the machine, and how busy it was."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.system(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
