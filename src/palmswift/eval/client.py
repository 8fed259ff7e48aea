"""An asynchronous client for `/v1/chat/completions`, plain and streamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from palmswift.errors import ChildError
from palmswift.eval.endpoint import Endpoint
from palmswift.eval.retry import FailureKind, RetryPolicy, is_transient, retry_after, wait_before

if TYPE_CHECKING:
    import aiohttp

_SHOWN = 500


class Reply(NamedTuple):
    """A chat completion that came back."""

    raw: Any
    """The reply's JSON, whole."""
    content: str | None
    reasoning: str | None
    """`reasoning_content` or `reasoning` of the message, where the server sends it apart."""
    finish_reason: str | None
    usage: dict[str, Any] | None
    seconds: float
    """From sending the attempt that succeeded to its last byte."""
    attempts: int


class Failure(NamedTuple):
    """A request that got no chat completion, after all its attempts."""

    kind: FailureKind
    status: int | None
    message: str
    seconds: float
    """Of the last attempt."""
    attempts: int


class Delta(NamedTuple):
    """A piece of a streamed completion."""

    content: str
    reasoning: str
    finish_reason: str | None
    usage: dict[str, Any] | None


class Client:
    """Asks one endpoint; use as an async context manager.

    A Retry-After holds back every request to the endpoint, not only the one that met it.
    """

    def __init__(self, endpoint: Endpoint, policy: RetryPolicy, *, concurrency: int = 8) -> None:
        self.endpoint = endpoint
        self.policy = policy
        self._concurrency = concurrency
        self._quiet_until = 0.0

    async def __aenter__(self) -> Client:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency + 1),
            headers=self.endpoint.headers(),
            timeout=aiohttp.ClientTimeout(
                total=self.policy.total,
                sock_connect=self.policy.connect,
                sock_read=self.policy.first_byte,
            ),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def models(self) -> list[str]:
        """The model names that `/v1/models` lists, empty when the server has no such route.

        ChildError when nothing answers at the address, or the key is refused.
        """
        import aiohttp

        where = f"endpoint {self.endpoint.label} at {self.endpoint.base_url}"
        try:
            async with self._session.get(f"{self.endpoint.base_url}/models") as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise ChildError(
                f"{where} does not answer: {_words(error)}",
                remedy="is the server running? python deploy/serve.py --run latest starts one",
            ) from error
        if status in (401, 403):
            raise ChildError(
                f"{where} refuses the key (HTTP {status})",
                remedy="name the variable that holds the key: --api-key-env NAME",
            )
        if status != 200:
            return []
        try:
            rows = msgspec.json.decode(body)["data"]
            return [str(row["id"]) for row in rows]
        except (msgspec.DecodeError, KeyError, TypeError):
            return []

    async def model(self) -> str:
        """The model name to send: the endpoint's own, else the first that the server lists."""
        names = await self.models()
        if self.endpoint.model is not None:
            return self.endpoint.model
        if not names:
            raise ChildError(
                f"endpoint {self.endpoint.label} at {self.endpoint.base_url} lists no models",
                remedy="is this an OpenAI-compatible server? name the model with --model NAME",
            )
        return names[0]

    async def complete(self, body: Mapping[str, Any]) -> Reply | Failure:
        """Send one request, again where that may help, and give what came of it."""
        data = msgspec.json.encode(body)
        for attempt in range(1, self.policy.attempts + 1):
            await self._hold()
            started = time.perf_counter()
            outcome, asked_wait = await self._attempt(data, started, attempt)
            if isinstance(outcome, Reply) or not is_transient(outcome.kind, outcome.status):
                return outcome
            if asked_wait is not None and asked_wait > self.policy.longest_wait:
                message = f"{outcome.message}; the server asks to wait {asked_wait:.0f} s"
                return outcome._replace(message=message)
            if attempt < self.policy.attempts:
                if asked_wait is not None:
                    self._quiet_until = max(self._quiet_until, time.perf_counter() + asked_wait)
                await asyncio.sleep(wait_before(attempt + 1, self.policy, asked_wait))
        return outcome

    async def _hold(self) -> None:
        """Wait until the server wants to be asked again."""
        while (remaining := self._quiet_until - time.perf_counter()) > 0:
            await asyncio.sleep(remaining)

    async def _attempt(
        self, data: bytes, started: float, attempt: int
    ) -> tuple[Reply | Failure, float | None]:
        """One POST: what came of it, and the seconds the server asked to wait."""
        import aiohttp

        def failed(kind: FailureKind, status: int | None, message: str) -> Failure:
            return Failure(kind, status, message, time.perf_counter() - started, attempt)

        try:
            async with self._post(data) as response:
                status, body = response.status, await response.read()
                seconds = time.perf_counter() - started
                asked_wait = retry_after(response.headers.get("Retry-After"))
        except asyncio.TimeoutError as error:
            kind: FailureKind = (
                "unreachable" if isinstance(error, aiohttp.ConnectionTimeoutError) else "timeout"
            )
            return failed(kind, None, _words(error)), None
        except (aiohttp.ClientError, OSError) as error:
            return failed("unreachable", None, _words(error)), None
        if status != 200:
            return failed("status", status, f"HTTP {status}: {_shown(body)}"), asked_wait
        try:
            return _reply(body, seconds, attempt), None
        except ValueError as error:
            return failed("garbage", status, f"{error}: {_shown(body)}"), None

    def _post(self, data: bytes) -> aiohttp.client._RequestContextManager:
        return self._session.post(
            f"{self.endpoint.base_url}/chat/completions",
            data=data,
            headers={"Content-Type": "application/json"},
        )

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[Delta]:
        """The pieces of one streamed completion as they come; ChildError when it fails."""
        import aiohttp

        where = f"endpoint {self.endpoint.label} at {self.endpoint.base_url}"
        try:
            async with self._post(msgspec.json.encode({**body, "stream": True})) as response:
                if response.status != 200:
                    text = _shown(await response.read())
                    raise ChildError(f"{where}: HTTP {response.status}: {text}")
                async for line in response.content:
                    if not line.startswith(b"data:"):
                        continue
                    event = line[5:].strip()
                    if event == b"[DONE]":
                        return
                    yield _delta(event, where)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise ChildError(f"{where}: the answer broke off: {_words(error)}") from error


def _reply(body: bytes, seconds: float, attempt: int) -> Reply:
    """The reply's parts; ValueError says what the body lacks."""
    try:
        raw = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError("the reply is not JSON") from error
    choices = raw.get("choices") if isinstance(raw, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ValueError("the reply has no choices[0].message")
    content, reasoning = _texts(message)
    if content is None and reasoning is None:
        raise ValueError("the reply's message has no text")
    usage = raw.get("usage")
    return Reply(
        raw=raw,
        content=content,
        reasoning=reasoning,
        finish_reason=_text(choice.get("finish_reason")) if isinstance(choice, dict) else None,
        usage=usage if isinstance(usage, dict) else None,
        seconds=seconds,
        attempts=attempt,
    )


def _delta(event: bytes, where: str) -> Delta:
    """One server-sent event as a piece of text."""
    try:
        raw = msgspec.json.decode(event)
    except msgspec.DecodeError as error:
        raise ChildError(f"{where}: the stream is not JSON: {_shown(event)}") from error
    if not isinstance(raw, dict) or "error" in raw:
        raise ChildError(f"{where}: {_shown(event)}")
    choices = raw.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    delta = choice.get("delta") if isinstance(choice, dict) else None
    content, reasoning = _texts(delta if isinstance(delta, dict) else {})
    usage = raw.get("usage")
    return Delta(
        content=content or "",
        reasoning=reasoning or "",
        finish_reason=_text(choice.get("finish_reason")) if isinstance(choice, dict) else None,
        usage=usage if isinstance(usage, dict) else None,
    )


class _Texts(NamedTuple):
    content: str | None
    reasoning: str | None


def _texts(message: Mapping[str, Any]) -> _Texts:
    reasoning = _text(message.get("reasoning_content"))
    if reasoning is None:
        reasoning = _text(message.get("reasoning"))
    return _Texts(_text(message.get("content")), reasoning)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _shown(body: bytes) -> str:
    """The beginning of a body, on one line."""
    text = " ".join(body.decode("utf-8", "replace").split())
    return f"{text[:_SHOWN]}…" if len(text) > _SHOWN else text or "(empty body)"


def _words(error: BaseException) -> str:
    """What went wrong on the way, without the library's own terms."""
    cause = getattr(error, "os_error", None)  # of a connection that never stood
    reason = getattr(cause, "strerror", None)
    if reason and "connect call failed" in reason.lower():
        reason = "connection refused" if isinstance(cause, ConnectionRefusedError) else None
    return reason or str(error) or type(error).__name__
