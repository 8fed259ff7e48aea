"""TCP ports: who listens on one, whether ms-swift would get it, and which is free."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import psutil

from palmswift.errors import InputError

_LINGER = 65.0
"""Seconds that Linux keeps closed connections in TIME_WAIT (60), and a little."""


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
    """A port that ms-swift would get: any when `start` is 0, else the first from `start` on."""
    for port in range(start, min(start + 1000, 65536)):
        if found := _bind(port):
            return found
    raise InputError(f"no port from {start} on is free", remedy="--port 0 picks any free one")


def _bind(port: int) -> int | None:
    """Bind as find_free_port does (swift/utils/utils.py): all interfaces, no SO_REUSEADDR."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise InputError(
                    f"port {port} is only for root", remedy="choose one from 1024 on: --port 8000"
                ) from None
            return None
        return int(probe.getsockname()[1])


def require_port(port: int, note: Callable[[str], object], patience: float = _LINGER) -> None:
    """Return when ms-swift would get `port`; `InputError` names who holds it.

    Connections that a stopped server closed keep the port for a minute (TIME_WAIT), and ms-swift
    would then take another one in silence, so that is waited for, up to `patience` seconds.
    """
    deadline, told = time.monotonic() + patience, False
    while _bind(port) is None:
        if holder := holder_of(port):
            raise InputError(
                f"port {port} is taken by {holder}",
                remedy=f"--port {free_port(port + 1)} is free; "
                "python deploy/status.py lists palmswift's own servers",
            )
        if not told:
            note(
                f"port {port} is held by closed connections of a stopped server; waiting for up "
                f"to 60 s (port {free_port(port + 1)} is free now)"
            )
            told = True
        if time.monotonic() > deadline:
            raise InputError(
                f"connections that are being closed still hold port {port}",
                remedy=f"try again in a minute, or --port {free_port(port + 1)}",
            )
        time.sleep(0.5)
