"""One node of a scheduler's job: `python -m palmswift.launchers.engines.node RUN_FOLDER`.

The first node goes on with the run as `train.py --resume` does, so it watches, judges and records;
the others run their processes and write logs alone, since all share the run's folder.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError
from palmswift.launchers.engines.place import NODE_VARIABLE

NUMBERED_BY = (NODE_VARIABLE, "SLURM_NODEID", "JOB_COMPLETION_INDEX")
"""Ours, Slurm's and Kubernetes' variable for the node's number."""

EXAMPLES = """
PALMSWIFT_NODE_RANK=0 python -m palmswift.launchers.engines.node runs/mine-20260101-120000
"""


def node_rank(environment: Mapping[str, str]) -> int:
    """The node's number by the scheduler's variable; `InputError` when none is set."""
    for name in NUMBERED_BY:
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    raise InputError(f"this is the part of a job, and none of {', '.join(NUMBERED_BY)} is set")


def _body(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.launchers.engines.follow import follow
    from palmswift.launchers.run_folder import find_run
    from palmswift.launchers.training import resumed_command

    rank = node_rank(os.environ)
    os.environ[NODE_VARIABLE] = str(rank)
    folder = find_run(args.run)
    command = resumed_command(folder, str(folder.facts("model")["model"]))
    follow(folder, command, rank, console)
    return Done({"run": str(folder.path), "node": rank})


def main(argv: Sequence[str] | None = None) -> int:
    """Run this node's part; its exit code."""
    parser = make_parser("palmswift.launchers.engines.node", "One node of a job.", EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    given = parser.parse_args(argv)
    try:
        first = node_rank(os.environ) == 0
    except InputError:
        first = False  # told by the body
    if first:
        from palmswift.launchers.train import main as train

        os.environ[NODE_VARIABLE] = "0"
        return train(["--resume", given.run])
    return run(parser, _body, argv)


if __name__ == "__main__":
    raise SystemExit(main())
