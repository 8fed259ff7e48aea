"""A scriptable OpenAI-compatible server on a free port, for trying clients without a model."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from palmswift.eval.fake.model import Capacity, Unigram
from palmswift.eval.fake.plan import Chunk, Plan, Script, ScriptFile, thinking

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Capacity", "Chunk", "FakeServer", "Plan", "Script", "Served", "Unigram", "thinking"]

OK = Plan()

OFFERS = frozenset({"prompt_logprobs", "echo", "tokenize", "logprobs"})
"""The ways in which a server may tell log-probabilities: of given text, and of a probe's reply.
`swift` is not among them: with it an answer at the end is gone on with, and cut apart, as behind
`swift deploy`."""


class Served(NamedTuple):
    """When the server did what for one request, by `time.perf_counter` (on Linux one clock for all
    processes of the machine)."""

    question: str
    arrived: float
    events: list[float]
    """When each event of a stream was handed to the socket."""
    ended: float


class FakeServer:
    """Serves until the block is left; `requests` are the bodies that came, in order.

    Every attribute may be changed while it serves: another `script` or `model_card` under the same
    address is another model.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        default: Plan = OK,
        models: Sequence[str] = ("fake",),
        api_key: str | None = None,
        port: int = 0,
        language: Unigram | None = None,
        offers: frozenset[str] = OFFERS,
        capacity: Capacity | None = None,
        model_card: dict[str, Any] | None = None,
        keep_requests: bool = True,
        weights: str = "fake",
        noise: float = 0.0,
    ) -> None:
        """`language` answers `logprobs`, `prompt_logprobs` and `echo` in the ways that it `offers`;
        other ways are passed over in silence, as some servers do. `model_card` holds further fields
        of each entry of `/v1/models`. `weights` decides how the probes of a fingerprint are
        answered, which stand in `probes`, not in `requests`; `noise` makes the log-probabilities
        differ from one asking to the next by so much."""
        self.script: Script = script if script is not None else {}
        self.default = default
        self.models = list(models)
        self.api_key = api_key
        self.port = port
        self.language = language
        self.offers = offers
        self.capacity = capacity
        self.model_card: dict[str, Any] = model_card if model_card is not None else {"created": 0}
        self.keep_requests = keep_requests
        self.weights = weights
        self.noise = noise
        self.probes: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        """Of every request that came, in order; names in lower case."""
        self.served: list[Served] = []
        self.most_at_once = 0
        self.in_flight = 0
        self._asked: Counter[str] = Counter()
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def base_url(self) -> str:
        """The address with `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def questions(self) -> list[str]:
        """The last message (or the prompt) of every request that came, in order."""
        return [_question(body) for body in self.requests]

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
            self._loop.run_until_complete(self.run())
        except OSError as error:  # a taken port; told to the thread that enters the block
            self._failure = error
            self._ready.set()
        finally:
            self._loop.close()

    async def run(self) -> None:
        """Serve in this loop until the block is left, or the task is cancelled."""
        from aiohttp import web

        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        app.router.add_get("/served", self._served)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024).start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            self.started()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def started(self) -> None:
        """Called in the server's loop as soon as `port` is known."""

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self.api_key is None or request.headers.get("Authorization") == f"Bearer {self.api_key}":
            return None
        return _json(_error("invalid API key", "authentication_error"), 401)

    async def _models(self, request: web.Request) -> web.Response:
        rows = [
            {"id": name, "object": "model", "owned_by": "palmswift", **self.model_card}
            for name in self.models
        ]
        return self._refusal(request) or _json({"object": "list", "data": rows})

    async def _served(self, request: web.Request) -> web.Response:
        return _json([served._asdict() for served in self.served])

    async def _tokenize(self, request: web.Request) -> web.Response:
        if self.language is None or "tokenize" not in self.offers:
            return _json(_error("no such route", "not_found"), 404)
        body = msgspec.json.decode(await request.read())
        tokens = self.language.prompt(body, goes_on="swift" in self.offers)
        ids = [self.language.token_id(token) for token in tokens]
        document: dict[str, Any] = {"count": len(ids), "max_model_len": 4096, "tokens": ids}
        if body.get("return_token_strs"):
            document["token_strs"] = tokens
        return _json(document)

    async def _detokenize(self, request: web.Request) -> web.Response:
        if self.language is None or "tokenize" not in self.offers:
            return _json(_error("no such route", "not_found"), 404)
        body = msgspec.json.decode(await request.read())
        return _json({"prompt": "".join(map(self.language.token_of, body["tokens"]))})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        arrived = time.perf_counter()
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        body = msgspec.json.decode(await request.read())
        if request.headers.get("X-Request-Purpose") == "fingerprint":
            self.probes.append(body)
            return _json(self._probed(body))
        if self.keep_requests:
            self.requests.append(body)
            self.headers.append({k.lower(): v for k, v in request.headers.items()})
        self.in_flight += 1
        self.most_at_once = max(self.most_at_once, self.in_flight)
        events: list[float] = []
        try:
            plan = self._plan(body)
            if self.capacity is not None:
                await self.capacity.serve()
            if plan.delay:
                await asyncio.sleep(plan.delay)
            return await _Answer(self, request, body, plan, events).give()
        except ConnectionResetError:  # the client has gone
            return _json(_error("the client has gone", "client"), 499)
        finally:
            self.in_flight -= 1
            if self.keep_requests:
                ended = time.perf_counter()
                self.served.append(Served(_question(body), arrived, events, ended))

    def _probed(self, body: dict[str, Any]) -> dict[str, Any]:
        """What these weights say to a probe: letters that are drawn for them and the prompt."""
        draw = random.Random(f"{self.weights} {_question(body)}")
        text = "".join(draw.choices("abcdefgh", k=8))
        rows = [
            {"token": c, "logprob": -draw.random() - random.random() * self.noise} for c in text
        ]
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        if body.get("logprobs") and "logprobs" in self.offers:
            choice["logprobs"] = {"content": rows}
        return {"choices": [{"index": 0, "finish_reason": "length", **choice}]}

    def _plan(self, body: dict[str, Any]) -> Plan:
        if callable(self.script):
            return self.script(_messages(body))
        question = _question(body)
        plans = self.script.get(question, self.default)
        if isinstance(plans, Plan):
            return plans
        turn = self._asked[question]
        self._asked[question] += 1
        return plans[min(turn, len(plans) - 1)]


class _Answer:
    """One reply, plain or streamed, of chat or of bare completion."""

    def __init__(
        self,
        server: FakeServer,
        request: web.Request,
        body: dict[str, Any],
        plan: Plan,
        events: list[float],
    ) -> None:
        self.server = server
        self.request = request
        self.body = body
        self.plan = plan
        self.events = events
        self.chat = "messages" in body

    async def give(self) -> web.StreamResponse:
        """The response, all sent; or a connection that was closed on the way."""
        from aiohttp import web

        plan = self.plan
        if plan.drop == "before":
            _cut(self.request)
            return web.Response()
        if plan.status != 200:
            error = plan.body or msgspec.json.encode(_error(f"scripted {plan.status}", "scripted"))
            return self._response(error, plan.status)
        if self.body.get("stream") and plan.body is None:
            return await self._stream()
        data = plan.body
        if data is None:
            document = {"error": plan.error} if plan.error is not None else self._completion()
            data = msgspec.json.encode(document)
        if plan.endless or plan.drop == "within":
            return await self._part(data)
        return self._response(data)

    def _response(self, data: bytes, status: int = 200) -> web.Response:
        from aiohttp import web

        content_type = self.plan.content_type or "application/json"
        headers = {**self.plan.headers, "Content-Type": content_type}
        return web.Response(body=data, status=status, headers=headers)

    async def _part(self, data: bytes) -> web.StreamResponse:
        """Half of the reply, or a reply without an end."""
        from aiohttp import web

        headers = {} if self.plan.endless else {"Content-Length": str(len(data))}
        response = web.StreamResponse(headers=headers)
        await response.prepare(self.request)
        await response.write(data[: len(data) // 2])
        while self.plan.endless:
            await response.write(b" " * 65536)
        _cut(self.request)
        return response

    def _completion(self) -> dict[str, Any]:
        text, reasoning = self.plan.whole()
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.plan.finish_reason}
        document: dict[str, Any] = {**self._envelope(""), "choices": [choice]}
        if self.chat:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if reasoning is not None:
                message[self.plan.reasoning_key] = reasoning
            if self.plan.tool_calls is not None:
                message["tool_calls"] = list(self.plan.tool_calls)
            choice["message"] = message
        else:
            choice["text"] = text
        if self.plan.usage:
            document["usage"] = self._usage(self.plan.tokens())
        if self.server.language is not None:
            self._add_logprobs(self.server.language, document, choice, text)
        return document

    def _add_logprobs(
        self, language: Unigram, document: dict[str, Any], choice: dict[str, Any], text: str
    ) -> None:
        """What the request asks about probabilities, where the server offers it."""
        body, offers = self.body, self.server.offers
        prompt = language.prompt(body, goes_on="swift" in offers)
        echo = bool(body.get("echo")) and "echo" in offers and not self.chat
        if echo:
            choice["text"] = "".join(prompt) + text
        if body.get("prompt_logprobs") is not None and "prompt_logprobs" in offers:
            told = language.prompt_logprobs(prompt)
            (document if self.chat else choice)["prompt_logprobs"] = told
        if body.get("logprobs") not in (None, False):
            own = language.tokens(text)
            if self.chat:
                choice["logprobs"] = language.chat_logprobs(own)
            else:
                told_of = prompt + own if echo else own
                choice["logprobs"] = language.completion_logprobs(told_of, echoed=echo)

    def _usage(self, tokens: int) -> dict[str, int]:
        if self.server.language is not None:
            asked = len(self.server.language.prompt(self.body))
        elif self.chat:
            asked = sum(len(turn.get("content") or "") for turn in self.body["messages"])
        else:
            asked = len(_question(self.body))
        return {
            "prompt_tokens": asked,
            "completion_tokens": tokens,
            "total_tokens": asked + tokens,
        }

    async def _stream(self) -> web.StreamResponse:
        from aiohttp import web

        plan = self.plan
        content_type = plan.content_type or "text/event-stream"
        response = web.StreamResponse(headers={**plan.headers, "Content-Type": content_type})
        await response.prepare(self.request)
        chunks = plan.events()
        half = len(chunks) // 2
        if self.chat:
            await self._write(response, self._event({"role": "assistant", "content": ""}))
        due = time.perf_counter()
        for index, chunk in enumerate(chunks):
            if index == half and (plan.drop == "within" or plan.error is not None):
                break
            due += chunk.delay
            if (remaining := due - time.perf_counter()) > 0:
                await asyncio.sleep(remaining)
            self.events.append(time.perf_counter())
            await self._write(response, chunk.raw or self._event(self._delta(chunk)))
        while plan.endless:
            await self._write(response, self._event(self._delta(Chunk("x" * 4096))))
        if plan.drop == "within":
            _cut(self.request)
            return response
        if plan.error is not None:
            await self._write(response, _sse({"error": plan.error}))
        elif not plan.torn:
            await self._finish(response)
        await response.write_eof()
        return response

    async def _finish(self, response: web.StreamResponse) -> None:
        """The finish reason, the usage when it is asked for, and the end."""
        calls = [{"index": n, **call} for n, call in enumerate(self.plan.tool_calls or ())]
        delta: dict[str, Any] = {"tool_calls": calls} if calls else {}
        await self._write(response, self._event(delta, self.plan.finish_reason))
        options = self.body.get("stream_options") or {}
        if options.get("include_usage") and self.plan.usage:
            usage = self._usage(self.plan.tokens())
            await self._write(
                response, _sse({**self._envelope(".chunk"), "choices": [], "usage": usage})
            )
        await self._write(response, b"data: [DONE]\n\n")

    def _delta(self, chunk: Chunk) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if chunk.reasoning:
            delta[self.plan.reasoning_key] = chunk.reasoning
        if chunk.text or not chunk.reasoning:
            delta["content"] = chunk.text
        return delta

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
        if self.chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        return _sse({**self._envelope(".chunk"), "choices": [choice]})

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": "chatcmpl-fake" if self.chat else "cmpl-fake",
            "object": f"chat.completion{kind}" if self.chat else "text_completion",
            "created": int(time.time()),
            "model": self.body.get("model", "fake"),
        }

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        await response.write(data)


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation that a request asks about; of a bare completion its prompt."""
    if "messages" in body:
        messages: list[dict[str, Any]] = body["messages"]
        return messages
    return [{"role": "user", "content": str(body.get("prompt", ""))}]


def _question(body: dict[str, Any]) -> str:
    messages = _messages(body)
    asked = next((m for m in reversed(messages) if m["role"] == "user"), messages[-1])
    return str(asked.get("content"))


def _cut(request: web.Request) -> None:
    """Close the connection without another byte."""
    if request.transport is not None:
        request.transport.abort()


def _json(document: Any, status: int = 200) -> web.Response:
    from aiohttp import web

    return web.Response(
        body=msgspec.json.encode(document), status=status, content_type="application/json"
    )


def _sse(document: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


def _error(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": None, "param": None}}


class _Alone(FakeServer):
    """A server in a process of its own: its address is the first line of stdout."""

    def started(self) -> None:
        """Tell the address."""
        print(self.base_url, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m palmswift.eval.fake.server [SCRIPT.json]`: serve until killed."""
    words = list(sys.argv[1:] if argv is None else argv)
    script = (
        msgspec.json.decode(Path(words[0]).read_bytes(), type=ScriptFile) if words else ScriptFile()
    )
    capacity = None
    if script.workers is not None:
        capacity = Capacity(script.workers, script.service, seed=script.seed)
    server = _Alone(
        dict(script.plans), default=script.default, models=script.models, capacity=capacity
    )
    try:
        asyncio.run(server.run())
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
