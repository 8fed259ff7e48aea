"""An asynchronous client for `/v1/chat/completions` and `/v1/completions`, plain and streamed."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from palmswift.errors import ChildError
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.pace import Pace, Pass, Result
from palmswift.eval.asking.reply import (
    PATHS,
    Delta,
    Failure,
    Gathered,
    Parts,
    Reply,
    Route,
    Unusable,
    read_delta,
    read_reply,
    shown,
)
from palmswift.eval.asking.retry import (
    OVERLOADED,
    FailureKind,
    RetryPolicy,
    asked_wait,
    is_transient,
    timestamp,
    wait_before,
)
from palmswift.eval.asking.sse import EventStream
from palmswift.eval.asking.timing import StreamClock

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Client", "Delta", "Failure", "Reply"]

T = TypeVar("T")

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Client:
    """Asks one endpoint; use as an async context manager.

    A Retry-After holds back every request to the endpoint, not only the one that met it. Proxies of
    the environment are used, but not for this machine; redirects are not followed, since the key
    would go with them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        policy: RetryPolicy,
        *,
        concurrency: int = 8,
        before: Pace | None = None,
    ) -> None:
        """`before` is the pace of a client that asked the same endpoint until now."""
        self.endpoint = endpoint
        self.policy = policy
        self.pace = Pace(concurrency, endpoint.limits, before=before)
        self.server_time: float | None = None
        """What the server's clock said when its models were asked for, in seconds since 1970."""
        self._key = endpoint.key()

    async def __aenter__(self) -> Client:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            headers={} if self._key is None else {"Authorization": f"Bearer {self._key}"},
            timeout=aiohttp.ClientTimeout(
                total=self.policy.total,
                sock_connect=self.policy.connect,
                sock_read=self.policy.first_byte,
            ),
            trust_env=not is_loopback(self.endpoint.base_url),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    @property
    def where(self) -> str:
        """The endpoint, as messages call it."""
        return f"endpoint {self.endpoint.label} at {self.endpoint.base_url}"

    async def model_cards(self) -> list[dict[str, Any]]:
        """The entries of `/v1/models`, empty when the server has no such route.

        ChildError when nothing answers at the address, or the key is refused.
        """
        import aiohttp

        try:
            async with self._session.get(
                f"{self.endpoint.base_url}/models", allow_redirects=False
            ) as response:
                status, body = response.status, await self._bounded(response)
                self.server_time = timestamp(response.headers.get("Date"))
        except Unusable as error:
            raise ChildError(f"{self.where}: {error.message}") from error
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise ChildError(
                f"{self.where} does not answer: {_words(error)}",
                remedy="is the server running? python deploy/serve.py --run latest starts one",
            ) from error
        if status in (401, 403):
            raise ChildError(
                f"{self.where} refuses the key (HTTP {status})",
                remedy="name the variable that holds the key: --api-key-env NAME",
            )
        if status != 200:
            return []
        try:
            rows = msgspec.json.decode(body)["data"]
            return [row for row in rows if isinstance(row["id"], str)]
        except (msgspec.DecodeError, KeyError, TypeError):
            return []

    async def models(self) -> list[str]:
        """The model names that the server lists; errors as `model_cards`."""
        return [card["id"] for card in await self.model_cards()]

    async def model(self) -> str:
        """The model name to send: the endpoint's own, else the first that the server lists."""
        names = await self.models()
        if self.endpoint.model is not None:
            return self.endpoint.model
        if not names:
            raise ChildError(
                f"{self.where} lists no models",
                remedy="is this an OpenAI-compatible server? name the model with --model NAME",
            )
        return names[0]

    async def complete(
        self,
        body: Mapping[str, Any],
        *,
        route: Route = "chat",
        stream: bool = False,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Reply | Failure:
        """Send one request, again where that may help, and give what came of it."""
        data = encoded(body, stream=stream)

        async def send(attempt: int) -> Reply | Failure:
            return await self.once(
                data, route=route, stream=stream, attempt=attempt, headers=headers
            )

        outcome, failed = await self._patiently(send, self._guess(body, data))
        return outcome._replace(retried=tuple(failed))

    async def ask(self, path: str, body: Mapping[str, Any]) -> Any | Failure:
        """POST to a route beside the API's own, such as vLLM's `/tokenize`, again where that may
        help; the reply's JSON."""
        data = msgspec.json.encode(body)
        url = self.endpoint.base_url.removesuffix("/v1") + path

        async def read(response: aiohttp.ClientResponse) -> Any:
            try:
                return msgspec.json.decode(await self._bounded(response))
            except msgspec.DecodeError as error:
                raise Unusable("garbage", f"{path} did not answer with JSON") from error

        async def send(attempt: int) -> Any | Failure:
            clock = StreamClock(time.perf_counter())
            return await self._exchange(self._post(url, data), clock, attempt, read)

        return (await self._patiently(send, len(data) / 4))[0]

    async def _patiently(
        self, send: Callable[[int], Awaitable[T | Failure]], guess: float
    ) -> tuple[T | Failure, list[Failure]]:
        """What came of a request that is sent again where that may help, and the failures before;
        `guess` is of its tokens."""
        failed: list[Failure] = []
        for attempt in range(1, self.policy.attempts + 1):
            ticket = await self.pace.enter(guess)
            outcome = await self._within(ticket, send(attempt))
            if not isinstance(outcome, Failure):
                return outcome, failed
            if not is_transient(outcome.kind, outcome.status):
                return outcome, failed
            wait = outcome.asked_wait
            if wait is not None and wait > self.policy.longest_wait:
                message = f"{outcome.message}; the server asks to wait {wait:.0f} s"
                return outcome._replace(message=message), failed
            if wait is not None:
                self.pace.hold(wait)
            if attempt < self.policy.attempts:
                failed.append(outcome)
                await asyncio.sleep(wait_before(attempt + 1, self.policy, wait))
        return outcome, failed

    async def _within(self, ticket: Pass, sent: Awaitable[T | Failure]) -> T | Failure:
        """One attempt, after which its place is another's."""
        result: Result = "other"
        tokens: int | None = None
        try:
            outcome = await sent
            result = _result(outcome) if isinstance(outcome, Failure) else "good"
            tokens = outcome.tokens if isinstance(outcome, Reply) else None
        finally:
            self.pace.leave(ticket, result, tokens)
        return outcome

    def _guess(self, body: Mapping[str, Any], data: bytes) -> float:
        """Tokens that the first requests may take, before replies have told."""
        most = body.get("max_tokens")
        return len(data) / 4 + (most if isinstance(most, int) else 0)

    async def once(
        self,
        data: bytes,
        *,
        route: Route = "chat",
        stream: bool = False,
        attempt: int = 1,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Reply | Failure:
        """One POST of an encoded body, whatever the pace; what came of it."""
        clock = StreamClock(time.perf_counter())

        async def read(response: aiohttp.ClientResponse) -> Parts:
            return await self._read(response, route, clock)

        request = self._post(f"{self.endpoint.base_url}{PATHS[route]}", data, headers)
        parts = await self._exchange(request, clock, attempt, read)
        if isinstance(parts, Failure):
            return parts
        return Reply(
            *parts,
            seconds=time.perf_counter() - clock.started,
            timings=clock.timings(),
            arrivals=clock.arrivals,
            attempts=attempt,
        )

    async def _exchange(
        self,
        request: aiohttp.client._RequestContextManager,
        clock: StreamClock,
        attempt: int,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T | Failure:
        """What `read` makes of the response, or what went wrong."""
        import aiohttp

        headers_came = False
        wait: float | None = None

        def failed(kind: FailureKind, status: int | None, message: str) -> Failure:
            seconds = time.perf_counter() - clock.started
            return Failure(kind, status, self._safe(message), seconds, attempt, wait)

        try:
            async with request as response:
                clock.headers(time.perf_counter())
                headers_came = True
                if response.status != 200:
                    wait = asked_wait(response.headers)
                    body = await self._bounded(response)
                    return failed("status", response.status, _refusal(response, body))
                return await read(response)
        except asyncio.TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                return failed("unreachable", None, f"no connection in {self.policy.connect:g} s")
            return failed("timeout", None, self._late(error, headers_came))
        except Unusable as error:
            return failed(error.kind, error.status, error.message)
        except aiohttp.ClientConnectorError as error:
            return failed("unreachable", None, _words(error))
        except aiohttp.InvalidURL as error:
            return failed("unreachable", None, f"not a usable address: {error}")
        except (aiohttp.ClientError, OSError) as error:
            return failed("dropped", None, f"the connection broke: {_words(error)}")

    async def _read(
        self, response: aiohttp.ClientResponse, route: Route, clock: StreamClock
    ) -> Parts:
        """The body of a reply, as the server chose to send it."""
        content_type = response.headers.get("Content-Type", "")
        if not content_type.startswith("text/event-stream"):
            return read_reply(await self._bounded(response), route, content_type)
        gathered = Gathered(route, clock)
        stream = EventStream()
        size = 0
        async for data in response.content.iter_any():
            now = time.perf_counter()
            size += len(data)
            if size > self.policy.largest:
                raise self._too_large()
            try:
                events = stream.feed(data)
            except ValueError as error:
                raise Unusable("too_large", str(error)) from error
            for event in events:
                gathered.add(event, now)
        for event in stream.close():
            gathered.add(event, time.perf_counter())
        return gathered.parts(None)

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole body; Unusable when it is larger than the policy allows."""
        pieces: list[bytes] = []
        size = 0
        async for data in response.content.iter_any():
            size += len(data)
            if size > self.policy.largest:
                raise self._too_large()
            pieces.append(data)
        return b"".join(pieces)

    def _too_large(self) -> Unusable:
        return Unusable("too_large", f"the reply is longer than {self.policy.largest} bytes")

    def _late(self, error: BaseException, headers_came: bool) -> str:
        import aiohttp

        if isinstance(error, aiohttp.SocketTimeoutError):
            if headers_came:
                return f"the reply stopped: nothing came for {self.policy.first_byte:g} s"
            return f"no first byte in {self.policy.first_byte:g} s"
        return f"no whole reply in {self.policy.total:g} s"

    def _safe(self, message: str) -> str:
        """The message without the key, should a server have repeated it."""
        return message.replace(self._key, "(key)") if self._key else message

    def _post(
        self, url: str, data: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> aiohttp.client._RequestContextManager:
        return self._session.post(
            url,
            data=data,
            headers={"Content-Type": "application/json", **headers},
            allow_redirects=False,
        )

    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[Delta]:
        """The pieces of one streamed chat completion as they come; ChildError when it fails."""
        import aiohttp

        try:
            url = f"{self.endpoint.base_url}{PATHS['chat']}"
            async with self._post(url, encoded(body, stream=True, usage=False)) as response:
                if response.status != 200:
                    text = _refusal(response, await self._bounded(response))
                    raise ChildError(self._safe(f"{self.where}: {text}"))
                finished = False
                events = EventStream()
                async for data in response.content.iter_any():
                    for event in events.feed(data):
                        if event == b"[DONE]":
                            return
                        delta = read_delta(event, "chat")
                        finished = finished or delta.finish_reason is not None
                        yield delta
                if not finished:
                    raise Unusable("dropped", "the stream ended before the reply did")
        except Unusable as error:
            raise ChildError(self._safe(f"{self.where}: {error.message}")) from error
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise ChildError(f"{self.where}: the answer broke off: {_words(error)}") from error


def encoded(body: Mapping[str, Any], *, stream: bool, usage: bool = True) -> bytes:
    """The body as it is posted; a stream is asked to tell its tokens as well."""
    if not stream:
        return msgspec.json.encode(body)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    return msgspec.json.encode({**body, "stream": True, **options})


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine, so that no proxy could reach it."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _result(failure: Failure) -> Result:
    return "overloaded" if failure.status in OVERLOADED else "other"


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> str:
    """A status other than 200 in words."""
    target = response.headers.get("Location")
    if target is not None and 300 <= response.status < 400:
        return f"HTTP {response.status}: redirected to {target[:200]}; give that address itself"
    return f"HTTP {response.status}: {shown(body)}"


def _words(error: BaseException) -> str:
    """What went wrong on the way, without the library's own terms."""
    cause = getattr(error, "os_error", None)  # of a connection that never stood
    reason = getattr(cause, "strerror", None)
    if reason and "connect call failed" in reason.lower():
        reason = "connection refused" if isinstance(cause, ConnectionRefusedError) else None
    return reason or str(error) or type(error).__name__
