"""Which servers run: one file a port under runs/.servers, true across crashes and reboots."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.errors import InputError
from palmswift.files import write_json
from palmswift.paths import runs_dir
from palmswift.process import group_members

_CLOCK_TICKS = 0.05
"""Seconds by which two readings of the same process's start may differ (ticks are 0.01 s)."""


class ServerState(BaseModel):
    """One server that palmswift started, as `<port>.json` holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: Literal[1] = 1
    pid: int
    """The server's first process; its group has the same number."""
    started_after_boot: float
    """Seconds from the machine's start to the process's: unlike the time of day, no clock change
    moves it, so pid and this together name one process."""
    started_at: str
    """UTC, ISO 8601."""
    host: str
    port: int
    base_url: str
    """Up to and with `/v1`."""
    name: str
    """What clients send as `model`."""
    keyed: bool = False
    """Whether it asks for an API key; the key itself is kept nowhere."""
    log: str
    argv: list[str]
    run: str | None = None
    """The run folder that it serves, if it serves one."""
    detached: bool = False
    parity: str = ""
    """What came of comparing it with the trained model; empty where that was not asked for."""
    stopping: bool = False
    """Somebody is ending it, so its end is not a failure."""


def servers_dir() -> Path:
    """Where the state files are."""
    return runs_dir() / ".servers"


def seconds_after_boot(pid: int) -> float:
    """When the process began, counted from the machine's start. psutil.NoSuchProcess if gone."""
    return psutil.Process(pid).create_time() - psutil.boot_time()


def live_members(state: ServerState) -> list[int]:
    """The process ids of the server's group that still live; empty when it is gone.

    The number of a group is not given to a new process while a member lives, so a group whose
    first process is gone is still the server's own if nothing in it is older than the server.
    """
    members = group_members(state.pid)
    starts = {}
    for pid in members:
        with contextlib.suppress(psutil.Error):
            starts[pid] = seconds_after_boot(pid)
    if state.pid in starts:
        same = abs(starts[state.pid] - state.started_after_boot) <= _CLOCK_TICKS
        return sorted(starts) if same else []
    if any(start < state.started_after_boot - _CLOCK_TICKS for start in starts.values()):
        return []
    return sorted(starts)


def state_file(port: int, folder: Path) -> Path:
    """The state file of the server on `port`."""
    return folder / f"{port}.json"


def read_state(file: Path) -> ServerState | None:
    """The state in `file`, None when there is none. `InputError` when it is not one."""
    try:
        return ServerState.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is not a server's state: {error}", remedy=f"delete it: rm {file}"
        ) from error


def read_states(folder: Path) -> list[ServerState]:
    """All recorded servers, those that are gone included, by port."""
    found = [read_state(file) for file in folder.glob("*.json")]
    return sorted((state for state in found if state), key=lambda state: state.port)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_unclaimed(port: int, folder: Path) -> None:
    """`InputError` when a living server of ours has the port, whether it is ready or not yet."""
    state = read_state(state_file(port, folder))
    if state is not None and (members := live_members(state)):
        raise InputError(
            f"port {port} is taken: {state.name} is served there (process {members[0]}, "
            f"since {state.started_at})",
            remedy=f"python deploy/stop.py --port {port} ends it, or choose another --port",
        )


def claim(state: ServerState, folder: Path) -> None:
    """Write the state file of a server that was just started; `InputError` if the port is claimed.

    The state of a server that is gone is replaced.
    """
    with _locked(folder):
        require_unclaimed(state.port, folder)
        write_json(state_file(state.port, folder), state.model_dump(mode="json"))


def mark_stopping(state: ServerState, folder: Path) -> None:
    """Say in the state file that the server's end is wanted."""
    rewrite(state.model_copy(update={"stopping": True}), folder)


def rewrite(state: ServerState, folder: Path) -> None:
    """Write the state of a server anew, unless another server has taken its place."""
    with _locked(folder):
        if _is_recorded(state, folder):
            write_json(state_file(state.port, folder), state.model_dump(mode="json"))


def release(state: ServerState, folder: Path) -> None:
    """Remove the server's state file, unless another server has taken its place."""
    with _locked(folder):
        if _is_recorded(state, folder):
            state_file(state.port, folder).unlink()


def _is_recorded(state: ServerState, folder: Path) -> bool:
    found = read_state(state_file(state.port, folder))
    return found is not None and (found.pid, found.started_after_boot) == (
        state.pid,
        state.started_after_boot,
    )


def select(
    states: Sequence[ServerState], *, port: int | None = None, run: Path | None = None
) -> list[ServerState]:
    """The servers on that port, of that run folder, or all; `InputError` when none is meant."""
    chosen = [
        state
        for state in states
        if (port is None or state.port == port)
        and (run is None or (state.run is not None and Path(state.run) == run))
    ]
    if not chosen and (port is not None or run is not None):
        what = f"on port {port}" if port is not None else f"of {run.name if run else ''}"
        known = ", ".join(f"{state.name} on port {state.port}" for state in states)
        raise InputError(
            f"palmswift runs no server {what}", remedy=f"it runs {known}" if known else ""
        )
    return chosen
