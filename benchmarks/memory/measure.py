"""Measure what real trainings take of a GPU, and the longest row under a cap.

python -m benchmarks.memory.measure --work runs/memory

One command: it makes a model of the real shape with random weights and rows of exact lengths, runs
the real `swift sft` over a grid, looks for the longest row, compares with the planner, and writes
benchmarks/records/memory-SIZE-DATE.json. With --cpu it goes the same way on a toy model, to show
that it works; what it then measures is the process. With --wheels it installs from a folder first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.memory.wheels import ROOT, install, run_from

CAP_MIB = 7688
"""What PyTorch gets of an 8,188 MiB card with a desktop on it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the record; 1 when a training failed for another reason than memory."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given)
    if arguments.wheels is None:
        from benchmarks.memory.session import run_session  # needs what is installed

        return run_session(arguments)
    target = (arguments.work / "packages").absolute()
    failed = install(arguments.wheels.absolute(), target)
    if failed:
        return failed
    return run_from(target, ["-m", "benchmarks.memory.measure", *_without_wheels(given)])


def _without_wheels(words: list[str]) -> list[str]:
    """The same command line for the Python that has the packages."""
    kept = [word for word in words if not word.startswith("--wheels=")]
    if "--wheels" in kept:
        at = kept.index("--wheels")
        del kept[at : at + 2]
    return kept


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for model, rows, logs")
    parser.add_argument("--size", default="8B", help="0.6B, 1.7B, 4B, 8B or 14B")
    parser.add_argument("--recipe", default="qwen3_8b_4bit", help="the grid varies this one")
    parser.add_argument("--long-recipe", default="qwen3_8b_4bit_long", help="for the longest row")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--longest", type=int, default=32768, help="no row is longer than this")
    parser.add_argument("--cap-mib", type=int, default=CAP_MIB)
    parser.add_argument("--cpu", action="store_true", help="a dry run at toy size")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to install from")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
