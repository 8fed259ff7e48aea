"""A port is taken or free, as servers bind it."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from palmswift.deploy.ports import free_port, holder_of, listens, require_port
from palmswift.errors import InputError


def listener() -> socket.socket:
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    held.listen()
    return held


def lingering_port() -> int:
    """A port that a server closed while it had a connection: held by TIME_WAIT alone."""
    with listener() as server:
        port = int(server.getsockname()[1])
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.recv(1)
        client.close()
    return port


def test_a_taken_port_is_refused_with_its_holder_and_a_free_one() -> None:
    with listener() as held:
        port = held.getsockname()[1]
        with pytest.raises(InputError) as caught:
            require_port(port)
    assert f"process {os.getpid()}" in str(caught.value)
    assert "is free" in caught.value.remedy


def test_a_free_port_is_let_through() -> None:
    require_port(free_port())


def test_connections_that_a_stopped_server_closed_do_not_hold_its_port() -> None:
    require_port(lingering_port())


def test_a_port_of_another_process_is_not_ours() -> None:
    with listener() as held:
        port = held.getsockname()[1]
        assert listens([os.getpid()], port)
        assert not listens([os.getppid()], port)


def test_nobody_holds_a_free_port() -> None:
    assert holder_of(free_port()) is None


def test_the_next_free_port_skips_taken_ones() -> None:
    with listener() as held:
        port = held.getsockname()[1]
        assert free_port(port) > port


def test_a_port_for_root_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refused)
    with pytest.raises(InputError, match="only for root"):
        require_port(80)
