"""How much of scoring, statistics and journal the unit tests run through, branches included.

pip install --target DIR coverage
python -m benchmarks.eval.coverage --coverage DIR

Runs tests/unit/eval once, in two minutes on a quiet machine; what runs in child processes is not
counted. The record is benchmarks/records/eval-coverage-DATE.json; exit code 1 when a module lies
below the goal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.eval.record import ROOT, write_record

GOAL = 0.95
MODULES = (
    *("asking/journal", "asking/think", "suites/scoring", "suites/summary", "suites/checking"),
    *("suites/assertions", "suites/extract", "measures/overlap", "measures/tokens"),
    *("measures/diversity", "measures/consistency", "measures/drift", "verdicts/distributions"),
    *("verdicts/significance", "verdicts/intervals", "verdicts/resample", "verdicts/power"),
    *("verdicts/sequential", "verdicts/comparison", "verdicts/verdict", "verdicts/gate"),
    *("verdicts/contamination", "verdicts/regressions", "judging/agreement"),
)
"""What the numbers of a report are made by, below src/palmswift/eval."""


def measured(library: Path) -> dict[str, dict[str, int]]:
    """What coverage counts of each module."""
    with tempfile.TemporaryDirectory() as name:
        data, report = Path(name, "data"), Path(name, "report.json")
        run = [sys.executable, "-m", "coverage"]
        environment = {**os.environ, "PYTHONPATH": str(library)}
        tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/eval"]
        source = ["--branch", "--source", "palmswift.eval", f"--data-file={data}"]
        for words in (
            [*run, "run", *source, *tests],
            [*run, "json", f"--data-file={data}", "-o", str(report)],
        ):
            subprocess.run(words, cwd=ROOT, env=environment, check=True)
        files = json.loads(report.read_text(encoding="utf-8"))["files"]
    return {
        module: next(
            found["summary"] for path, found in files.items() if path.endswith(f"/{module}.py")
        )
        for module in MODULES
    }


def share(*of: dict[str, int]) -> float:
    """Statements and branches that were run, of all."""
    run = sum(one["covered_lines"] + one["covered_branches"] for one in of)
    return round(run / sum(one["num_statements"] + one["num_branches"] for one in of), 4)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests, print each module's share, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--coverage", type=Path, required=True, metavar="DIR")
    found = measured(parser.parse_args(argv).coverage)
    shares = {module: share(counted) for module, counted in found.items()}
    record: dict[str, Any] = {"covered": share(*found.values()), "goal": GOAL, "modules": shares}
    for module, value in shares.items():
        print(f"{value:7.2%}  {module}")
    what = "share of statements and branches that tests/unit/eval runs through"
    command = "python -m benchmarks.eval.coverage --coverage DIR"
    print(write_record("coverage", what, command, ("pytest", "hypothesis"), record))
    return int(min(shares.values()) < GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
