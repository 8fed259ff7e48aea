"""Asks an endpoint many questions at once and journals every answer; goes on where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from palmswift.eval.asking.client import Client
from palmswift.eval.asking.conversation import canonical_hash
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.journal import Journal, Prediction, RequestError, RequestKey
from palmswift.eval.asking.pace import Pace
from palmswift.eval.asking.reply import Failure, Reply, Route
from palmswift.eval.asking.retry import RetryPolicy

_CHECK_SECONDS = 60.0
"""After so long the model is looked at again, to see that it is still the same."""

_BETWEEN_RETURNS = 10.0
"""Seconds before a server that was away once more is looked at again for it."""

_AWAY = ("unreachable", "dropped")
"""What a server that ends, or is started anew, does to requests."""


class Sampling(BaseModel):
    """What is asked of the model besides the messages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    stream: bool = False
    """Have replies streamed, so that the time to the first token is known. The request counts as
    the same either way."""


class Question(NamedTuple):
    """One request to make."""

    case: str
    repeat: int
    messages: list[dict[str, Any]]
    fields: Mapping[str, Any] = MappingProxyType({})
    """Further fields of the body, such as tools; they come before the sampling's."""
    body: Mapping[str, Any] | None = None
    """The whole body, in place of messages, sampling and fields."""
    route: Route = "chat"


class Progress(NamedTuple):
    """How far the asking has come."""

    endpoint: str
    done: int
    total: int
    errors: int


class Outcome(NamedTuple):
    """What became of the questions to one endpoint in this call."""

    reused: int
    """Answered in the journal before."""
    asked: int
    errors: int
    not_asked: int
    """Left when the server was given up on."""
    first_error: str | None


class Target(NamedTuple):
    """A model that is asked."""

    endpoint: Endpoint
    model: str
    """The name to send."""
    fingerprint: str | None = None
    """What it is known by; null where it cannot be recognised."""

    def body(self, question: Question, sampling: Sampling) -> dict[str, Any]:
        """The JSON that is posted for a question."""
        if question.body is not None:
            model = self.endpoint.model or question.body.get("model") or self.model
            return {**question.body, "model": model, **self.endpoint.extra}
        return {
            "model": self.model,
            "messages": question.messages,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            **self.endpoint.extra,
            **question.fields,
        }

    def key(self, question: Question, body: Mapping[str, Any]) -> RequestKey:
        """What the request with this body is known by in the journal."""
        where = (self.endpoint.label, question.case, question.repeat)
        return RequestKey(*where, canonical_hash(body), self.fingerprint)


async def ask_all(
    target: Target,
    questions: Iterable[Question],
    total: int,
    journal: Journal,
    answered: Container[RequestKey],
    sampling: Sampling,
    policy: RetryPolicy,
    concurrency: int,
    report: Callable[[Progress], None],
    check: Callable[[Client], Awaitable[None]] | None = None,
    before: Pace | None = None,
) -> Outcome:
    """Ask what is not in `answered` yet; each finished request is a row of the journal.

    When `concurrency` (at least 5) requests in a row cannot reach the server, the rest is left
    unasked. `check` is awaited with nothing in flight: at the end, every minute, and after the
    server was away; what it raises ends the asking. `before` is the pace at which the endpoint was
    asked until now.
    """
    state = _State(target, questions, total, answered, sampling)
    async with Client(target.endpoint, policy, concurrency=concurrency, before=before) as client:
        while state.go_on():
            await _segment(state, client, journal, concurrency, report)
            if check is not None and state.unchecked and not state.is_gone(concurrency):
                await check(client)
                state.unchecked = 0
    return state.outcome()


async def _segment(
    state: _State,
    client: Client,
    journal: Journal,
    concurrency: int,
    report: Callable[[Progress], None],
) -> None:
    """Ask with all workers until the questions end or a check is due."""

    async def worker() -> None:
        while not state.check_is_due and (work := state.take()) is not None:
            if state.is_gone(concurrency):
                state.not_asked += 1
                continue
            started_at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            outcome = await client.complete(
                work.body, route=work.question.route, stream=state.sampling.stream
            )
            journal.append(_row(state.target, work, outcome, started_at))
            state.count(outcome)
            report(Progress(client.endpoint.label, state.finished, state.total, state.errors))

    state.begin_segment()
    workers = [asyncio.ensure_future(worker()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


class _Work(NamedTuple):
    question: Question
    body: dict[str, Any]
    key: RequestKey


class _State:
    """The counts of one `ask_all`, and the iterator that its workers share."""

    def __init__(
        self,
        target: Target,
        questions: Iterable[Question],
        total: int,
        answered: Container[RequestKey],
        sampling: Sampling,
    ) -> None:
        self.target = target
        self.total = total
        self.sampling = sampling
        self.reused = self.asked = self.errors = self.not_asked = self.unreachable = 0
        self.unchecked = 0
        """Replies since the model was looked at last."""
        self.first_error: str | None = None
        self._came_back = False
        self._returned_at = float("-inf")
        self._began = 0.0
        self._open = self._unanswered(questions, answered)
        self._next = next(self._open, None)

    def _unanswered(
        self, questions: Iterable[Question], answered: Container[RequestKey]
    ) -> Iterator[_Work]:
        for question in questions:
            body = self.target.body(question, self.sampling)
            key = self.target.key(question, body)
            if key in answered:
                self.reused += 1
            else:
                yield _Work(question, body, key)

    def go_on(self) -> bool:
        """Whether anything is left to ask."""
        return self._next is not None

    def take(self) -> _Work | None:
        """The next question; None: there is none."""
        work = self._next
        if work is not None:
            self._next = next(self._open, None)
        return work

    def begin_segment(self) -> None:
        """A time without checks begins."""
        self._began = time.monotonic()
        self._came_back = False

    @property
    def check_is_due(self) -> bool:
        """Whether the server was away, or has not been looked at for long."""
        return self._came_back or time.monotonic() - self._began > _CHECK_SECONDS

    def is_gone(self, concurrency: int) -> bool:
        """Whether so many requests in a row could not reach the server that it is given up on."""
        return self.unreachable >= max(concurrency, 5)

    @property
    def finished(self) -> int:
        return self.reused + self.asked

    def count(self, outcome: Reply | Failure) -> None:
        """Note what came of a request."""
        self.asked += 1
        away = any(failure.kind in _AWAY for failure in outcome.retried)
        if isinstance(outcome, Reply):
            if away or self.unreachable:
                self._notice_return()
            self.unreachable = 0
            self.unchecked += 1
            return
        self.errors += 1
        self.first_error = self.first_error or outcome.message
        self.unreachable = self.unreachable + 1 if outcome.kind in _AWAY else 0

    def _notice_return(self) -> None:
        """The server answers again. One that drops connections all the time is not looked at each
        time."""
        now = time.monotonic()
        if now - self._returned_at > _BETWEEN_RETURNS:
            self._came_back = True
            self._returned_at = now

    def outcome(self) -> Outcome:
        return Outcome(self.reused, self.asked, self.errors, self.not_asked, self.first_error)


def _row(target: Target, work: _Work, outcome: Reply | Failure, started_at: str) -> Prediction:
    """The journal row of a finished request."""
    common: dict[str, Any] = {
        "endpoint": target.endpoint.label,
        "base_url": target.endpoint.base_url,
        "case": work.question.case,
        "repeat": work.question.repeat,
        "request": work.body,
        "route": work.question.route,
        "request_hash": work.key.request_hash,
        "fingerprint": target.fingerprint,
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "retried": [_error(failure) for failure in outcome.retried],
        "started_at": started_at,
    }
    if isinstance(outcome, Failure):
        return Prediction(**common, error=_error(outcome))
    return Prediction(
        **common,
        content=outcome.content,
        reasoning=outcome.reasoning,
        finish_reason=outcome.finish_reason,
        usage=outcome.usage,
        tool_calls=outcome.tool_calls,
        logprobs=outcome.logprobs,
        prompt_logprobs=outcome.prompt_logprobs,
        timings=outcome.timings,
        reply=_without_logprobs(outcome.raw),
    )


def _error(failure: Failure) -> RequestError:
    return RequestError(kind=failure.kind, status=failure.status, message=failure.message)


def _without_logprobs(raw: Any) -> Any:
    """The reply without what the row holds in fields of its own, many times as long as the text."""
    reply = {name: value for name, value in raw.items() if name != "prompt_logprobs"}
    first, *others = reply["choices"]
    kept = {k: v for k, v in first.items() if k not in ("logprobs", "prompt_logprobs")}
    return {**reply, "choices": [kept, *others]}
