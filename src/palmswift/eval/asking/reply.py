"""What a server sent back, as a reply or as a failure: plain JSON, or a stream put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from palmswift.eval.asking.retry import FailureKind
from palmswift.eval.asking.timing import StreamClock, Timings

Route = Literal["chat", "completion"]

PATHS: dict[Route, str] = {"chat": "/chat/completions", "completion": "/completions"}
"""Below the endpoint's base URL."""

_SHOWN = 500

_STATUS_OF = {
    "rate_limit": 429,
    "overloaded": 529,
    "server_error": 500,
    "internal": 500,
    "unavailable": 503,
    "timeout": 408,
}
"""The status that an error object without one would have had, by a part of its type."""


class Reply(NamedTuple):
    """A completion that came back."""

    raw: Any
    """The reply's JSON; of a stream, a completion put together from its events."""
    content: str | None
    reasoning: str | None
    """`reasoning_content` or `reasoning` of the message, where the server sends it apart."""
    finish_reason: str | None
    usage: dict[str, Any] | None
    tool_calls: list[Any] | None
    logprobs: Any
    prompt_logprobs: list[Any] | None
    seconds: float
    """From sending the attempt that succeeded to its last byte."""
    timings: Timings
    arrivals: list[float]
    """Of a stream: seconds from sending to each event with text."""
    attempts: int
    retried: tuple[Failure, ...] = ()
    """The attempts that failed before."""

    @property
    def tokens(self) -> int | None:
        """Of prompt and reply together, as the server counts them."""
        return _count(self.usage, "total_tokens")

    @property
    def completion_tokens(self) -> int | None:
        """Of the reply, thinking included."""
        return _count(self.usage, "completion_tokens")


class Failure(NamedTuple):
    """A request that got no completion; with `attempts`, after all of them."""

    kind: FailureKind
    status: int | None
    message: str
    seconds: float
    """Of the last attempt."""
    attempts: int
    asked_wait: float | None = None
    """Seconds that the server asked to wait."""
    retried: tuple[Failure, ...] = ()
    """The attempts before the last."""


class Delta(NamedTuple):
    """A piece of a streamed completion."""

    content: str
    reasoning: str
    finish_reason: str | None
    usage: dict[str, Any] | None
    tool_calls: list[Any]
    choice: Mapping[str, Any]
    """`choices[0]` as it came."""


class Unusable(Exception):
    """What came is no completion."""

    def __init__(self, kind: FailureKind, message: str, status: int | None = None) -> None:
        self.kind: FailureKind = kind
        self.message = message
        self.status = status
        super().__init__(message)


class Parts(NamedTuple):
    """What a completion holds."""

    raw: Any
    content: str | None
    reasoning: str | None
    finish_reason: str | None
    usage: dict[str, Any] | None
    tool_calls: list[Any] | None
    logprobs: Any
    prompt_logprobs: list[Any] | None


def read_reply(body: bytes, route: Route, content_type: str = "") -> Parts:
    """The parts of a plain reply; Unusable says what the body lacks."""
    raw = _decoded(body, content_type, "the reply")
    choices = raw.get("choices") if isinstance(raw, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if choice is None and isinstance(raw, dict) and raw.get("error"):
        raise of_error(raw["error"])
    if not isinstance(choice, dict):
        raise Unusable("garbage", f"the reply has no choices: {shown(body)}")
    message = choice.get("message") if route == "chat" else {"content": choice.get("text")}
    if not isinstance(message, dict):
        raise Unusable("garbage", f"the reply has no choices[0].message: {shown(body)}")
    content, reasoning = _texts(message)
    if content is None:
        content = _text(message.get("refusal"))
    calls = message.get("tool_calls")
    if content is None and reasoning is None and not calls:
        raise Unusable("garbage", f"the reply's message has no text: {shown(body)}")
    told = raw.get("prompt_logprobs") or choice.get("prompt_logprobs")
    return Parts(
        raw=raw,
        content=content,
        reasoning=reasoning,
        finish_reason=_text(choice.get("finish_reason")),
        usage=_mapping(raw.get("usage")),
        tool_calls=calls if isinstance(calls, list) and calls else None,
        logprobs=choice.get("logprobs"),
        prompt_logprobs=told if isinstance(told, list) else None,
    )


def read_delta(event: bytes, route: Route) -> Delta:
    """One event of a stream; Unusable when it is an error, or no piece of a completion."""
    raw = _decoded(event, "", "an event of the stream")
    if not isinstance(raw, dict):
        raise Unusable("garbage", f"an event of the stream is no object: {shown(event)}")
    if raw.get("error"):
        raise of_error(raw["error"])
    choices = raw.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    if not isinstance(choice, dict):
        raise Unusable("garbage", f"an event's choices[0] is no object: {shown(event)}")
    delta = choice.get("delta") if route == "chat" else {"content": choice.get("text")}
    delta = delta if isinstance(delta, dict) else {}
    content, reasoning = _texts(delta)
    calls = delta.get("tool_calls")
    return Delta(
        content=content or "",
        reasoning=reasoning or "",
        finish_reason=_text(choice.get("finish_reason")),
        usage=_mapping(raw.get("usage")),
        tool_calls=calls if isinstance(calls, list) else [],
        choice=choice,
    )


class Gathered:
    """A streamed reply on its way: texts, tool calls, log-probabilities, and when they came."""

    def __init__(self, route: Route, clock: StreamClock) -> None:
        self.clock = clock
        self.done = False
        """`[DONE]` has come."""
        self._route = route
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None

    def add(self, event: bytes, now: float) -> None:
        """Take in the data of one event, which came at `now`; Unusable as `read_delta`."""
        if self.done or event == b"[DONE]":
            self.done = True
            return
        delta = read_delta(event, self._route)
        self.clock.text(delta.content, delta.reasoning, now)
        if delta.content:
            self._content.append(delta.content)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        for call in delta.tool_calls:
            self._add_call(call)
        logprobs = delta.choice.get("logprobs")
        if isinstance(logprobs, dict):
            for name, values in logprobs.items():
                if isinstance(values, list):
                    self._logprobs.setdefault(name, []).extend(values)
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage

    def _add_call(self, call: Any) -> None:
        if not isinstance(call, dict):
            return
        index = call.get("index")
        whole = self._calls.setdefault(index if isinstance(index, int) else 0, {})
        piece = call.get("function")
        function = whole.setdefault("function", {"name": "", "arguments": ""})
        for name in ("name", "arguments"):
            if isinstance(piece, dict) and isinstance(piece.get(name), str):
                function[name] += piece[name]
        for name in ("id", "type"):
            if call.get(name):
                whole[name] = call[name]

    def parts(self, model: Any) -> Parts:
        """The whole reply. Unusable: the stream ended before the reply did."""
        if not self.done and self._finish_reason is None:
            raise Unusable("dropped", "the stream ended before the reply did")
        content = "".join(self._content)
        reasoning = "".join(self._reasoning) or None
        calls = [self._calls[index] for index in sorted(self._calls)] or None
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._finish_reason}
        if self._route == "chat":
            message: dict[str, Any] = {"role": "assistant", "content": content}
            if reasoning is not None:
                message["reasoning_content"] = reasoning
            if calls is not None:
                message["tool_calls"] = calls
            choice["message"] = message
        else:
            choice["text"] = content
        raw = {"object": "stream", "model": model, "choices": [choice], "usage": self._usage}
        return Parts(
            raw=raw,
            content=content,
            reasoning=reasoning,
            finish_reason=self._finish_reason,
            usage=self._usage,
            tool_calls=calls,
            logprobs=self._logprobs or None,
            prompt_logprobs=None,
        )


def of_error(error: Any) -> Unusable:
    """An `error` object that came in place of a reply, with the status that it stands for."""
    if not isinstance(error, dict):
        return Unusable("server_error", f"the server reports an error: {error}")
    code, kind = error.get("code"), str(error.get("type") or "").lower()
    status = code if isinstance(code, int) and not isinstance(code, bool) else None
    if status is None and isinstance(code, str) and code.isdigit():
        status = int(code)
    if status is None:
        words = f"{kind} {code or ''}".lower().replace(" ", "_")
        status = next((s for word, s in _STATUS_OF.items() if word in words), None)
    message = error.get("message") or msgspec.json.encode(error).decode()
    return Unusable("server_error", f"the server reports an error: {message}"[:_SHOWN], status)


def shown(body: bytes) -> str:
    """The beginning of a body, on one line."""
    text = " ".join(body[: 4 * _SHOWN].decode("utf-8", "replace").split())
    return f"{text[:_SHOWN]}…" if len(text) > _SHOWN else text or "(empty body)"


def _decoded(body: bytes, content_type: str, what: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        kind = content_type.partition(";")[0].strip()
        of_kind = f" but {kind}" if kind and "json" not in kind else ""
        raise Unusable("garbage", f"{what} is not JSON{of_kind}: {shown(body)}") from error


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


def _mapping(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _count(usage: dict[str, Any] | None, name: str) -> int | None:
    value = (usage or {}).get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
