"""The `stop` command: end servers that run, with every process they started."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import InputError

if TYPE_CHECKING:
    from palmswift.deploy.state import ServerState

EXAMPLES = """
python deploy/stop.py
python deploy/stop.py --port 8001
python deploy/stop.py --run latest
python deploy/stop.py --all
"""


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose a server; shared with status.py and logs.py."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--run", metavar="RUN", help="the server of this run: `latest`, its name, or its folder"
    )
    which.add_argument("--port", type=int, metavar="N", help="the server on this port")


def selected(args: argparse.Namespace) -> list[ServerState]:
    """The recorded servers that the arguments choose; `InputError` when they choose none."""
    from palmswift.deploy.state import read_states, select, servers_dir
    from palmswift.launchers.run_folder import find_run

    folder: Path | None = find_run(args.run).path if args.run else None
    return select(read_states(servers_dir()), port=args.port, run=folder)


def _body(args: argparse.Namespace, console: Console) -> Done:
    states = selected(args)
    if len(states) > 1 and not args.all and args.run is None:
        running = ", ".join(f"{state.name} on port {state.port}" for state in states)
        raise InputError(f"several servers run: {running}", remedy="--port N, or --all")
    if not states:
        console.say("no server runs")
    return Done({"stopped": [_stop(state, console) for state in states]})


def _stop(state: ServerState, console: Console) -> dict[str, Any]:
    from palmswift.deploy.ending import Ended, end_server
    from palmswift.deploy.state import live_members, mark_stopping, release, servers_dir

    folder, members = servers_dir(), live_members(state)
    ended = Ended(0, 0)
    if members:
        console.note(f"stopping {state.name} on port {state.port} ...")
        mark_stopping(state, folder)
        ended = end_server(state.pid)
        console.say(ended.sentence(state.name, state.port))
    else:
        console.say(f"{state.name} on port {state.port} had ended by itself; its log: {state.log}")
    release(state, folder)
    return {"name": state.name, "port": state.port, "ran": bool(members), **ended._asdict()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = make_parser("stop.py", "Stop servers that palmswift runs.", EXAMPLES)
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="every server")
    return run(parser, _body, argv)
