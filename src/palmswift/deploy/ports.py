"""TCP ports: who listens on one, whether a server would get it, and which is free."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable
from typing import NamedTuple

import psutil

from palmswift.errors import InputError


class Holder(NamedTuple):
    """A process that listens on a port; pid None when the system does not tell."""

    pid: int | None
    name: str

    def __str__(self) -> str:
        return self.name if self.pid is None else f"{self.name} (process {self.pid})"


def holder_of(port: int) -> Holder | None:
    """The process that listens on `port` on any interface, None when nobody does."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS tells only root
        return Holder(None, "another process") if _answers(port) else None
    for connection in connections:
        if _is_listener(connection.status, connection.laddr, port):
            return _holder(connection.pid)
    return None


def _holder(pid: int | None) -> Holder:
    if pid is None:
        return Holder(None, "a process of another user")
    with contextlib.suppress(psutil.Error):
        return Holder(pid, psutil.Process(pid).name())
    return Holder(pid, "a process")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def listens(pids: Iterable[int], port: int) -> bool:
    """Whether one of these processes (our own) listens on `port`."""
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            for connection in psutil.Process(pid).net_connections(kind="tcp"):
                if _is_listener(connection.status, connection.laddr, port):
                    return True
    return False


def _is_listener(status: str, address: object, port: int) -> bool:
    # An unbound socket's address is an empty tuple, without a port.
    return status == psutil.CONN_LISTEN and getattr(address, "port", None) == port


def free_port(start: int = 0) -> int:
    """A port that a server would get: any when `start` is 0, else the first from `start` on."""
    for port in range(start, min(start + 1000, 65536)):
        if found := bindable(port):
            return found
    raise InputError(f"no port from {start} on is free", remedy="--port 0 picks any free one")


def bindable(port: int) -> int | None:
    """`port`, or any when it is 0, if a server can have it; None when somebody listens there.

    It is bound as uvicorn and vLLM bind theirs, with SO_REUSEADDR, so that connections which a
    stopped server has closed (TIME_WAIT, a minute) do not hold it. macOS would then let another
    bind beside a listener on one interface, hence the question whether anyone answers.
    """
    if port and _answers(port):
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise InputError(
                    f"port {port} is only for root", remedy="choose one from 1024 on: --port 8000"
                ) from None
            return None
        return int(probe.getsockname()[1])


def require_port(port: int) -> None:
    """Return when a server would get `port`; `InputError` names who holds it."""
    if bindable(port) is None:
        raise InputError(
            f"port {port} is taken by {holder_of(port) or 'another process'}",
            remedy=f"--port {free_port(port + 1)} is free; "
            "python deploy/status.py lists palmswift's own servers",
        )
