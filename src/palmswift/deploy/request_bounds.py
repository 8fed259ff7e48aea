"""Bounds a server's memory under a flood: the size of a request's body, and how many wait.

An ASGI middleware (the standard library alone) that looks at a request once, before its body is
read, and at nothing that comes back. Neither ms-swift 4.6.0 nor vLLM 0.32 has such a bound: forty
bodies of 8 MB took 2.5 GB and more than a minute of `swift deploy`, in which it answered nobody.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

BYTES_VARIABLE = "PALMSWIFT_REQUEST_BYTES"
"""Environment variable: bytes of a request's body beyond which it gets HTTP 413."""

WAITING_VARIABLE = "PALMSWIFT_REQUESTS"
"""Environment variable: requests at a time beyond which one gets HTTP 503."""

LEAST_BYTES = 1 << 20
MOST_REQUESTS = 512

_BYTES_A_TOKEN = 32
"""More than any text's: a token of Chinese written as \\uXXXX takes 6 to 18."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def bounds_for(context: int | None) -> dict[str, str]:
    """The environment variables for a server of requests up to `context` tokens."""
    most = max(LEAST_BYTES, _BYTES_A_TOKEN * (context or 0))
    return {BYTES_VARIABLE: str(most), WAITING_VARIABLE: str(MOST_REQUESTS)}


class _TooLarge(Exception):
    """The body went over its bound while it was read."""


class RequestBounds:
    """Middleware: HTTP 413 for a body that is too large, 503 while too many requests are open.

    `GET` requests (health, models, metrics) are always let through.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.most_bytes = int(os.environ.get(BYTES_VARIABLE, LEAST_BYTES))
        self.most_requests = int(os.environ.get(WAITING_VARIABLE, MOST_REQUESTS))
        self._open = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        elif self._open >= self.most_requests:
            await _refuse(send, 503, f"{self._open} requests are open; ask again later")
        elif _said_length(scope) > self.most_bytes:
            await self._too_large(send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Message, receive: Receive, send: Send) -> None:
        read, begun = 0, False

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most_bytes:
                raise _TooLarge
            return message

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._open += 1
        try:
            await self.app(scope, bounded, noting)
        except _TooLarge:
            if begun:
                raise
            await self._too_large(send)
        finally:
            self._open -= 1

    async def _too_large(self, send: Send) -> None:
        await _refuse(send, 413, f"a request's body may have {self.most_bytes:,} bytes")


def _said_length(scope: Message) -> int:
    """Content-Length; 0 where it is not said or is no number, which the server judges."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"object": "error", "message": why}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # What of the body is still on its way is not read.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
