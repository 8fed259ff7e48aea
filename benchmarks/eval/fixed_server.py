"""A server that gives every request the same reply with hardly any work, to measure clients by.

python benchmarks/eval/fixed_server.py        # prints its base URL, serves until killed

It speaks just enough HTTP/1.1: requests with Content-Length, connections that stay. A request whose
body asks for a stream gets 64 events. `/v1/models` lists one model.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

TEXT = "我们周二到周日上午八点到晚上八点营业，周一休诊。"
TOKENS = 64


class Fixed(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._data += data
        while True:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            length = _length(head)
            if len(rest) < length:
                return
            body, self._data = rest[:length], rest[length:]
            self._transport.write(_reply(head, body))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _reply(head: bytes, body: bytes) -> bytes:
    if head.startswith(b"GET"):
        return MODELS
    return STREAM if b'"stream":true' in body or b'"stream": true' in body else COMPLETION


def _http(body: bytes, content_type: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


_USAGE = {"prompt_tokens": 16, "completion_tokens": TOKENS, "total_tokens": 16 + TOKENS}


def _completion() -> dict[str, Any]:
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    envelope = {"id": "c", "object": "chat.completion", "created": 1, "model": "fixed"}
    return {**envelope, "choices": [choice], "usage": _USAGE}


def _events() -> bytes:
    envelope = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fixed"}

    def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: " + _json({**envelope, "choices": [choice]}) + b"\n\n"

    last = b"data: " + _json({**envelope, "choices": [], "usage": _USAGE}) + b"\n\n"
    texts = [event({"content": "字"}) for _ in range(TOKENS)]
    return b"".join([event({"role": "assistant"}), *texts, event({}, "stop"), last]) + END


END = b"data: [DONE]\n\n"
MODELS = _http(
    _json({"object": "list", "data": [{"id": "fixed", "object": "model"}]}), "application/json"
)
COMPLETION = _http(_json(_completion()), "application/json")
STREAM = _http(_events(), "text/event-stream")


async def main() -> None:
    """Serve on a free port of this machine."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Fixed, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
