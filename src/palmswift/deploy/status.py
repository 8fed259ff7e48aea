"""The `status` command: which servers run, whether they answer, and which have died."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from palmswift.command import Console, Done, make_parser, run
from palmswift.deploy.stop import add_selection, selected

if TYPE_CHECKING:
    from palmswift.deploy.state import ServerState

EXAMPLES = """
python deploy/status.py
python deploy/status.py --port 8000 --json
"""

Condition = Literal["ready", "starting", "silent", "gone"]
"""`ready`: it answers; `starting`: it lives and does not listen yet; `silent`: it listens and does
not answer; `gone`: its processes have ended."""


def condition_of(state: ServerState) -> Condition:
    """What the server is doing now."""
    from palmswift.deploy.ports import listens
    from palmswift.deploy.readiness import is_healthy
    from palmswift.deploy.state import live_members

    members = live_members(state)
    if not members:
        return "gone"
    if not listens(members, state.port):
        return "starting"
    return "ready" if is_healthy(state.base_url) else "silent"


def _body(args: argparse.Namespace, console: Console) -> Done:
    from palmswift.deploy.state import release, servers_dir

    states = selected(args)
    found = [(state, condition_of(state)) for state in states]
    if not states:
        console.say("no server runs")
    for state, condition in found:
        console.say(
            f"{condition:<9} {state.base_url}  {state.name}  process {state.pid}  "
            f"since {state.started_at}"
        )
        if state.parity:
            console.say(f"          {state.parity}")
        if condition == "gone":
            console.say(f"          it is taken off the list; its log: {state.log}")
            release(state, servers_dir())
    servers = [
        {**state.model_dump(mode="json"), "condition": condition} for state, condition in found
    ]
    troubled = any(condition in ("gone", "silent") for _, condition in found)
    return Done({"servers": servers}, 3 if troubled else 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 3 when a server has died or does not answer."""
    parser = make_parser("status.py", "Show the servers that palmswift runs.", EXAMPLES)
    add_selection(parser)
    return run(parser, _body, argv)
