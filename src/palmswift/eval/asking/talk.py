"""A conversation with a served model, or the same one with several at once, streamed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from palmswift.errors import ChildError, PalmswiftError
from palmswift.eval.asking.client import Client
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.engine import Sampling
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.asking.think import Piece, ThinkStream, split_think
from palmswift.eval.loop import run_interruptible


class Turn(NamedTuple):
    """One question and what came back."""

    label: str
    question: str
    answer: str | None
    """None when nothing was answered: the thinking never ended, the answer was stopped, or the
    request failed."""
    reasoning: str | None
    finish_reason: str | None
    first_token_seconds: float | None
    """Until the first text, thinking included."""
    seconds: float
    stopped: bool
    """By Ctrl-C; then the turn is not part of the conversation."""
    error: PalmswiftError | None = None


class Talk:
    """A conversation with one model; the thinking of earlier answers is not sent again."""

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        sampling: Sampling,
        policy: RetryPolicy,
        system: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.sampling = sampling
        self.policy = policy
        self._parts: list[str] = []
        self._apart: list[str] = []
        self.reset(system)

    @property
    def label(self) -> str:
        """What the endpoint is called."""
        return self.endpoint.label

    def reset(self, system: str | None) -> None:
        """Begin anew."""
        self.system = system
        self.messages: list[dict[str, str]] = (
            [{"role": "system", "content": system}] if system is not None else []
        )

    def take_back(self) -> str | None:
        """Forget the last question and its answer; the question, None if there is none."""
        if len(self.messages) < 2 or self.messages[-1]["role"] != "assistant":
            return None
        question = self.messages[-2]["content"]
        del self.messages[-2:]
        return question

    async def stream(
        self, question: str, show: Callable[[Piece], None]
    ) -> tuple[str | None, float | None]:
        """Ask, giving each piece to `show`; the finish reason and the seconds to the first text."""
        self._parts, self._apart = [], []
        body = {
            "model": self.model,
            "messages": [*self.messages, {"role": "user", "content": question}],
            "max_tokens": self.sampling.max_tokens,
            "temperature": self.sampling.temperature,
            **self.endpoint.extra,
        }
        splitter = ThinkStream()
        finish_reason, first = None, None
        started = time.perf_counter()
        async with Client(self.endpoint, self.policy) as client:
            async for delta in client.stream(body):
                if first is None and (delta.content or delta.reasoning):
                    first = time.perf_counter() - started
                self._parts.append(delta.content)
                self._apart.append(delta.reasoning)
                finish_reason = delta.finish_reason or finish_reason
                if delta.reasoning:
                    show(Piece("reasoning", delta.reasoning))
                for piece in splitter.feed(delta.content):
                    show(piece)
        for piece in splitter.close():
            show(piece)
        return finish_reason, first

    def finish(
        self,
        question: str,
        seconds: float,
        outcome: tuple[str | None, float | None] | PalmswiftError | None,
    ) -> Turn:
        """The turn that the last `stream` made; None as outcome: it was stopped.

        An answer becomes part of the history; a turn that failed or was stopped does not.
        """
        answer, reasoning = split_think("".join(self._parts), "".join(self._apart))
        if isinstance(outcome, PalmswiftError):
            return Turn(self.label, question, None, None, None, None, seconds, False, outcome)
        finish_reason, first = outcome or (None, None)
        if answer is not None and outcome is not None:
            self.messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        return Turn(
            self.label, question, answer, reasoning, finish_reason, first, seconds, outcome is None
        )


def ask(talks: Sequence[Talk], question: str, show: Callable[[str, Piece], None]) -> list[Turn]:
    """Ask all models at once; a turn of each, in their order. One that fails stops no other.

    `show` gets each piece with the label of the model that it is of. Ctrl-C stops all of them;
    SIGTERM goes on as KeyboardInterrupt.
    """
    started = time.perf_counter()
    seconds = dict.fromkeys(range(len(talks)), 0.0)

    async def one(index: int, talk: Talk) -> tuple[str | None, float | None]:
        try:
            return await talk.stream(question, lambda piece: show(talk.label, piece))
        finally:
            seconds[index] = time.perf_counter() - started

    async def everything() -> list[tuple[str | None, float | None] | BaseException]:
        jobs = [one(index, talk) for index, talk in enumerate(talks)]
        return await asyncio.gather(*jobs, return_exceptions=True)

    try:
        outcomes = run_interruptible(everything())
    except KeyboardInterrupt as stop:
        if signal.SIGTERM in stop.args:
            raise
        elapsed = time.perf_counter() - started
        return [talk.finish(question, elapsed, None) for talk in talks]
    turns = []
    for index, (talk, outcome) in enumerate(zip(talks, outcomes, strict=True)):
        if isinstance(outcome, BaseException) and not isinstance(outcome, ChildError):
            raise outcome
        turns.append(talk.finish(question, seconds[index], outcome))
    return turns
