"""How fast one endpoint is asked: requests in flight, requests and tokens a minute, waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Result = Literal["good", "overloaded", "other"]

_SLACK = 1e-6
"""Seconds by which a clock may come short of the moment that was slept to."""


class Limits(BaseModel):
    """What an endpoint's provider allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int | None = Field(default=None, ge=1)
    """Requests in flight, where it should be fewer than the command's."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Of prompt and reply together."""


class Pace:
    """Lets requests go when they may; one for each endpoint.

    In flight are at most `concurrency`. The number falls to 0.7 of itself when the server says that
    it has too much to do (429, 503, 529), once for all requests that were sent before, and grows by
    one a round again. Requests a minute are spread evenly. Tokens a minute are counted over the
    last 60 seconds: before a reply is there, it counts as what replies have taken on average.
    """

    def __init__(
        self,
        concurrency: int,
        limits: Limits | None = None,
        *,
        before: Pace | None = None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`before` has asked the same endpoint: what it spent of the minute is spent."""
        limits = limits or Limits()
        self.limit = min(concurrency, limits.concurrency or concurrency)
        self.window = float(self.limit)
        self.in_flight = 0
        self.round = 0
        """Grows whenever the window shrinks."""
        self.waited = 0.0
        """Seconds that requests were held back for rates and Retry-After, added up."""
        self._gap = 60 / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self._next: float = before._next if before is not None else 0.0
        self._tokens = limits.tokens_per_minute
        self._spent: deque[list[float]] = before._spent if before is not None else deque()
        self._mean: float = before._mean if before is not None else 0.0
        self._replies: int = before._replies if before is not None else 0
        self._quiet_until: float = before._quiet_until if before is not None else 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._clock = clock
        self._sleep = sleep

    async def enter(self, guess: float = 0.0) -> Pass:
        """Wait until one more request may be sent; `guess` is how many tokens it may take."""
        while self.in_flight >= max(1, int(self.window)):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._wake()  # the turn was given to us, who no longer want it
                raise
        self.in_flight += 1
        ticket = Pass(self.round, [0.0, 0.0])
        began = self._clock()
        try:
            if self._gap:
                await self._spread()
            if self._tokens:
                await self._afford(guess, ticket)
            while (remaining := self._quiet_until - self._clock()) > 0:
                await self._sleep(remaining)
        except BaseException:
            self._free()
            raise
        self.waited += self._clock() - began
        return ticket

    def leave(self, ticket: Pass, result: Result, tokens: int | None = None) -> None:
        """A request has ended, and took so many tokens (null: nobody told)."""
        if result == "overloaded" and ticket.round == self.round:
            self.window = max(1.0, self.window * 0.7)
            self.round += 1
        elif result == "good":
            self.window = min(float(self.limit), self.window + 1 / self.window)
        if self._tokens and tokens is not None:
            ticket.entry[1] = tokens
            self._replies += 1
            self._mean += (tokens - self._mean) / self._replies
        self._free()

    def hold(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._quiet_until = max(self._quiet_until, self._clock() + seconds)

    def _free(self) -> None:
        self.in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        room = max(1, int(self.window)) - self.in_flight
        while self._waiting and room > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    async def _spread(self) -> None:
        """Wait for the next place in an even row of requests."""
        now = self._clock()
        due = max(now, self._next)
        self._next = due + self._gap
        while (remaining := due - self._clock()) > _SLACK:
            await self._sleep(remaining)

    async def _afford(self, guess: float, ticket: Pass) -> None:
        """Wait until the last minute has room for the tokens, and note them.

        A request that is larger than the whole allowance goes when nothing else was sent.
        """
        assert self._tokens is not None
        wanted = self._mean if self._replies else guess
        while True:
            now = self._clock()
            while self._spent and self._spent[0][0] <= now - 60:
                self._spent.popleft()
            if not self._spent or sum(n for _, n in self._spent) + wanted <= self._tokens:
                ticket.entry[:] = [now, wanted]
                self._spent.append(ticket.entry)
                return
            await self._sleep(max(_SLACK, self._spent[0][0] + 60 - now))


class Pass:
    """The right to send one request."""

    __slots__ = ("entry", "round")

    def __init__(self, number: int, entry: list[float]) -> None:
        self.round = number
        self.entry = entry
        """When it was let go, and its tokens."""
