"""A flood of requests is refused before it takes memory, and others are answered meanwhile."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest
import requests
import uvicorn

from palmswift.deploy.ports import free_port
from palmswift.deploy.request_bounds import (
    BYTES_VARIABLE,
    LEAST_BYTES,
    WAITING_VARIABLE,
    Message,
    Receive,
    RequestBounds,
    Send,
    bounds_for,
)


class Echo:
    """An application that reads a body whole, waits to be let go on, and tells its length."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.reading = threading.Semaphore(0)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        length, more = 0, True
        while more:
            message = await receive()
            length, more = length + len(message["body"]), message.get("more_body", False)
        self.reading.release()
        while scope["method"] == "POST" and not self.go_on.is_set():
            await _breathe()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(length).encode()})


async def _breathe() -> None:
    import asyncio

    await asyncio.sleep(0.01)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def port(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a real server that takes bodies of 1,000 bytes, three requests at a time."""
    monkeypatch.setenv(BYTES_VARIABLE, "1000")
    monkeypatch.setenv(WAITING_VARIABLE, "3")
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(RequestBounds(echo), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        pass
    yield port
    echo.go_on.set()
    server.should_exit = True
    thread.join()


def test_a_body_up_to_the_bound_is_read_and_a_larger_one_refused(port: int) -> None:
    url = f"http://127.0.0.1:{port}/"
    assert requests.post(url, data=b"x" * 1000, timeout=30).text == "1000"
    refused = requests.post(url, data=b"x" * 1001, timeout=30)
    assert refused.status_code == 413
    assert "1,000 bytes" in refused.json()["message"]


def test_a_body_that_does_not_say_its_length_is_counted(port: int) -> None:
    url = f"http://127.0.0.1:{port}/"
    assert requests.post(url, data=iter([b"x" * 400] * 2), timeout=30).text == "800"
    assert requests.post(url, data=iter([b"x" * 400] * 3), timeout=30).status_code == 413


def test_a_refused_body_is_not_waited_for(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_more_requests_than_may_wait_are_told_so_while_others_are_answered(
    port: int, echo: Echo
) -> None:
    url = f"http://127.0.0.1:{port}/"
    echo.go_on.clear()
    codes: list[int] = []

    def ask() -> None:
        codes.append(requests.post(url, data=b"x", timeout=30).status_code)

    waiting = [threading.Thread(target=ask) for _ in range(3)]
    for thread in waiting:
        thread.start()
        assert echo.reading.acquire(timeout=30)
    assert requests.post(url, data=b"x", timeout=30).status_code == 503
    assert requests.get(url, timeout=30).status_code == 200
    echo.go_on.set()
    for thread in waiting:
        thread.join()
    assert codes == [200, 200, 200]
    assert requests.post(url, data=b"x", timeout=30).status_code == 200


def test_what_a_model_can_read_is_within_its_bound() -> None:
    assert int(bounds_for(None)[BYTES_VARIABLE]) == LEAST_BYTES
    assert int(bounds_for(131_072)[BYTES_VARIABLE]) > 131_072 * len("\\u4e2d") * 3
