"""The `logs` command: the end of a server's log, and what follows."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from palmswift.command import Console, Done, make_parser, run
from palmswift.deploy.stop import add_selection, selected
from palmswift.errors import InputError

EXAMPLES = """
python deploy/logs.py
python deploy/logs.py --port 8001 -n 200
python deploy/logs.py --follow
"""


def _body(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.deploy.state import live_members
    from palmswift.launchers.diagnosis import log_tail

    if args.lines < 0:
        raise InputError("-n wants a number of lines", remedy="-n 50")
    if args.follow and args.json:
        raise InputError("--follow has no end, --json needs one", remedy="leave one of them out")
    states = selected(args)
    if not states:
        raise InputError("no server runs", remedy="python deploy/serve.py --run latest --detach")
    state = max(states, key=lambda state: state.started_at)
    log = Path(state.log)
    start = log.stat().st_size if log.is_file() else 0
    lines = log_tail(log, args.lines, at_most=start) if args.lines else []
    for line in lines:
        console.say(line)
    if args.follow:
        _follow(log, start, lambda: bool(live_members(state)), console)
    return Done({"name": state.name, "port": state.port, "log": state.log, "lines": lines})


def _follow(log: Path, start: int, lives: Callable[[], bool], console: Console) -> None:
    """Print what is appended after byte `start` until the server has ended."""
    with log.open("rb") as stream:
        stream.seek(start)
        going = True
        while going:
            going = lives()
            while line := stream.readline():
                console.say(line.decode("utf-8", errors="replace").rstrip())
            time.sleep(0.2)
    console.note("the server has ended")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = make_parser("logs.py", "Show what a server has written.", EXAMPLES)
    add_selection(parser)
    parser.add_argument("-n", "--lines", type=int, default=50, help="how many lines (50)")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the server ends or Ctrl-C"
    )
    return run(parser, _body, argv)
