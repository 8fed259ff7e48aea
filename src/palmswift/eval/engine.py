"""Asks an endpoint many questions at once and journals every answer; goes on where it stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from palmswift.eval.client import Client, Failure, Reply
from palmswift.eval.conversation import canonical_hash
from palmswift.eval.endpoint import Endpoint
from palmswift.eval.journal import Journal, Prediction, RequestError, RequestKey
from palmswift.eval.retry import RetryPolicy


class Sampling(BaseModel):
    """What is asked of the model besides the messages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)


class Question(NamedTuple):
    """One request to make."""

    case: str
    repeat: int
    messages: list[dict[str, Any]]
    fields: Mapping[str, Any] = {}
    """Further request fields of its own: tools, response_format, max_tokens, ..."""


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


def request_body(
    endpoint: Endpoint, model: str, question: Question, sampling: Sampling
) -> dict[str, Any]:
    """The JSON that is posted."""
    return {
        "model": model,
        "messages": question.messages,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        **endpoint.extra,
        **question.fields,
    }


def request_key(endpoint: Endpoint, question: Question, body: dict[str, Any]) -> RequestKey:
    """What the request with this body is known by in the journal."""
    return RequestKey(endpoint.label, question.case, question.repeat, canonical_hash(body))


async def find_model(endpoint: Endpoint, policy: RetryPolicy) -> str:
    """The model name to send to `endpoint`; ChildError when it does not answer."""
    async with Client(endpoint, policy) as client:
        return await client.model()


async def ask_all(
    endpoint: Endpoint,
    model: str,
    questions: Sequence[Question],
    journal: Journal,
    answered: set[RequestKey],
    sampling: Sampling,
    policy: RetryPolicy,
    concurrency: int,
    report: Callable[[Progress], None],
) -> Outcome:
    """Ask what is not in `answered` yet; each finished request is a row of the journal.

    When `concurrency` (at least 5) requests in a row cannot reach the server, the rest is left
    unasked.
    """
    state = _State(endpoint, model, questions, answered, sampling)
    async with Client(endpoint, policy, concurrency=concurrency) as client:

        async def worker() -> None:
            for question, body, key in state.open:
                if state.unreachable >= max(concurrency, 5):
                    state.not_asked += 1
                    continue
                started_at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
                outcome = await client.complete(body)
                journal.append(_row(endpoint, question, body, key, outcome, started_at))
                state.count(outcome)
                report(Progress(endpoint.label, state.finished, state.total, state.errors))

        workers = [asyncio.ensure_future(worker()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return state.outcome()


class _Work(NamedTuple):
    question: Question
    body: dict[str, Any]
    key: RequestKey


class _State:
    """The counts of one `ask_all`, and the iterator that its workers share."""

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        questions: Sequence[Question],
        answered: set[RequestKey],
        sampling: Sampling,
    ) -> None:
        self.model = model
        self.total = len(questions)
        self.reused = self.asked = self.errors = self.not_asked = self.unreachable = 0
        self.first_error: str | None = None
        self.open = self._open(endpoint, questions, answered, sampling)

    def _open(
        self,
        endpoint: Endpoint,
        questions: Sequence[Question],
        answered: set[RequestKey],
        sampling: Sampling,
    ) -> Iterator[_Work]:
        for question in questions:
            body = request_body(endpoint, self.model, question, sampling)
            key = request_key(endpoint, question, body)
            if key in answered:
                self.reused += 1
            else:
                yield _Work(question, body, key)

    @property
    def finished(self) -> int:
        return self.reused + self.asked

    def count(self, outcome: Reply | Failure) -> None:
        self.asked += 1
        if isinstance(outcome, Reply):
            self.unreachable = 0
            return
        self.errors += 1
        self.first_error = self.first_error or outcome.message
        self.unreachable = self.unreachable + 1 if outcome.kind == "unreachable" else 0

    def outcome(self) -> Outcome:
        return Outcome(self.reused, self.asked, self.errors, self.not_asked, self.first_error)


def _row(
    endpoint: Endpoint,
    question: Question,
    body: dict[str, Any],
    key: RequestKey,
    outcome: Reply | Failure,
    started_at: str,
) -> Prediction:
    """The journal row of a finished request."""
    common: dict[str, Any] = {
        "endpoint": endpoint.label,
        "base_url": endpoint.base_url,
        "case": question.case,
        "repeat": question.repeat,
        "request": body,
        "request_hash": key.request_hash,
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "started_at": started_at,
    }
    if isinstance(outcome, Failure):
        error = RequestError(kind=outcome.kind, status=outcome.status, message=outcome.message)
        return Prediction(**common, error=error)
    return Prediction(
        **common,
        content=outcome.content,
        reasoning=outcome.reasoning,
        finish_reason=outcome.finish_reason,
        usage=outcome.usage,
        reply=outcome.raw,
    )
