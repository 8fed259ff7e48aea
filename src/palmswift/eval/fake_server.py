"""A scriptable OpenAI-compatible server on a free port, for trying clients without a model."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from aiohttp import web


@dataclass(frozen=True)
class Plan:
    """What the server does with one request."""

    text: str = "ok"
    reasoning: str | None = None
    """Sent apart, under `reasoning_key`."""
    reasoning_key: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    finish_reason: str = "stop"
    delay: float = 0.0
    """Seconds before anything is sent."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent as it is in place of a completion."""
    drop: Literal["before", "within"] | None = None
    """Close the connection before the reply, or in the middle of it."""
    chunks: Sequence[str] | None = None
    """The pieces of a streamed reply; null: one character each."""
    chunk_delay: float = 0.0
    """Seconds before each piece."""


Script = Mapping[str, Plan | Sequence[Plan]] | Callable[[list[dict[str, Any]]], Plan]
"""Plans by the last user message, or a function of the messages. Of a list of plans the first
request gets the first, and so on; the last one stays."""


class FakeServer:
    """Serves until the block is left; `requests` are the bodies that came, in order."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        default: Plan = Plan(),
        models: Sequence[str] = ("fake",),
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        self.script: Script = script if script is not None else {}
        self.default = default
        self.models = list(models)
        self.api_key = api_key
        self.port = port
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = 0
        self._in_flight = 0
        self._asked: Counter[str] = Counter()
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def base_url(self) -> str:
        """The address with `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def questions(self) -> list[str]:
        """The last message of every request that came, in order."""
        return [body["messages"][-1]["content"] for body in self.requests]

    def __enter__(self) -> FakeServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._run())
        except OSError as error:  # a taken port; told to the thread that enters the block
            self._failure = error
            self._ready.set()
        finally:
            self._loop.close()

    async def _run(self) -> None:
        from aiohttp import web

        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def _refusal(self, request: web.Request) -> web.Response | None:
        from aiohttp import web

        if self.api_key is None:
            return None
        if request.headers.get("Authorization") == f"Bearer {self.api_key}":
            return None
        return web.json_response(_error("invalid API key", "authentication_error"), status=401)

    async def _models(self, request: web.Request) -> web.Response:
        from aiohttp import web

        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": "palmswift"}
            for name in self.models
        ]
        return self._refusal(request) or web.json_response({"object": "list", "data": rows})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        body = await request.json()
        self.requests.append(body)
        self._in_flight += 1
        self.most_at_once = max(self.most_at_once, self._in_flight)
        try:
            plan = self._plan(body["messages"])
            await asyncio.sleep(plan.delay)
            return await self._answer(request, body, plan)
        finally:
            self._in_flight -= 1

    def _plan(self, messages: list[dict[str, Any]]) -> Plan:
        if callable(self.script):
            return self.script(messages)
        question = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
        plans = self.script.get(question, self.default)
        if isinstance(plans, Plan):
            return plans
        turn = self._asked[question]
        self._asked[question] += 1
        return plans[min(turn, len(plans) - 1)]

    async def _answer(
        self, request: web.Request, body: dict[str, Any], plan: Plan
    ) -> web.StreamResponse:
        from aiohttp import web

        if plan.drop == "before":
            _cut(request)
            return web.Response()
        if plan.status != 200:
            error = plan.body or json.dumps(_error(f"scripted {plan.status}", "scripted")).encode()
            return web.Response(
                body=error,
                status=plan.status,
                headers=plan.headers,
                content_type="application/json",
            )
        if body.get("stream") and plan.body is None:
            return await self._stream(request, body, plan)
        data = plan.body
        if data is None:
            data = json.dumps(self._completion(body, plan), ensure_ascii=False).encode()
        if plan.drop == "within":
            response = web.StreamResponse(headers={"Content-Length": str(len(data))})
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
            _cut(request)
            return response
        return web.Response(body=data, headers=plan.headers, content_type="application/json")

    def _completion(self, body: dict[str, Any], plan: Plan) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": plan.text}
        if plan.reasoning is not None:
            message[plan.reasoning_key] = plan.reasoning
        choice = {"index": 0, "message": message, "finish_reason": plan.finish_reason}
        asked = sum(len(turn["content"]) for turn in body["messages"])
        return {
            **_envelope(body, "chat.completion"),
            "choices": [choice],
            "usage": {
                "prompt_tokens": asked,
                "completion_tokens": len(plan.text),
                "total_tokens": asked + len(plan.text),
            },
        }

    async def _stream(
        self, request: web.Request, body: dict[str, Any], plan: Plan
    ) -> web.StreamResponse:
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunks = list(plan.chunks if plan.chunks is not None else plan.text)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if plan.reasoning is not None:
            deltas.append({plan.reasoning_key: plan.reasoning})
        deltas += [{"content": chunk} for chunk in chunks]
        for index, delta in enumerate(deltas):
            if plan.drop == "within" and index > len(deltas) // 2:
                _cut(request)
                return response
            await asyncio.sleep(plan.chunk_delay)
            await response.write(_event(body, delta, None))
        await response.write(_event(body, {}, plan.finish_reason))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _cut(request: web.Request) -> None:
    """Close the connection without another byte."""
    if request.transport is not None:
        request.transport.abort()


def _envelope(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": kind,
        "created": int(time.time()),
        "model": body.get("model", "fake"),
    }


def _event(body: dict[str, Any], delta: dict[str, Any], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    document = {**_envelope(body, "chat.completion.chunk"), "choices": [choice]}
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def _error(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": None, "param": None}}
