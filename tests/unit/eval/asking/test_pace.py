from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.eval.asking.pace import Limits, Pace


class Clock:
    """Time that passes only when everybody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> Awaitable[object]:
        """A sleep until `seconds` from now."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, future))
        return future

    async def run(self, work: asyncio.Future[Any]) -> None:
        """Let time pass until the work is done."""
        while not work.done():
            for _ in range(20):
                await asyncio.sleep(0)
            if self._sleepers and not work.done():
                self._sleepers.sort(key=lambda pair: pair[0])
                self.now, future = self._sleepers.pop(0)
                if not future.done():
                    future.set_result(None)


def simulated(
    limits: Limits, requests: int, tokens: Callable[[int], int], concurrency: int = 4
) -> list[tuple[float, int]]:
    """When each request was let go, and what it took; each lasts a second."""
    clock = Clock()
    sent: list[tuple[float, int]] = []

    async def one(pace: Pace, number: int) -> None:
        ticket = await pace.enter(tokens(number))
        sent.append((clock.now, tokens(number)))
        await clock.sleep(1.0)
        pace.leave(ticket, "good", tokens(number))

    async def main() -> None:
        pace = Pace(concurrency, limits, clock=clock, sleep=clock.sleep)
        await clock.run(asyncio.gather(*(one(pace, n) for n in range(requests))))

    asyncio.run(main())
    return sent


@given(st.floats(2, 600), st.integers(1, 30))
@settings(max_examples=30)
def test_no_minute_has_more_requests_than_are_allowed(allowed: float, requests: int) -> None:
    sent = simulated(Limits(requests_per_minute=allowed), requests, lambda n: 0)
    assert len(sent) == requests
    for start, _ in sent:
        within = sum(start <= at < start + 60 - 1e-3 for at, _ in sent)
        assert within <= allowed + 1


@given(st.integers(100, 5000), st.integers(1, 25), st.integers(1, 100))
@settings(max_examples=30)
def test_no_minute_takes_more_tokens_than_are_allowed(
    allowed: int, requests: int, each: int
) -> None:
    sent = simulated(Limits(tokens_per_minute=allowed), requests, lambda n: each)
    assert len(sent) == requests
    for start, _ in sent:
        assert sum(n for at, n in sent if start <= at < start + 60 - 1e-3) <= max(allowed, each)


def test_a_request_larger_than_the_whole_allowance_goes_alone() -> None:
    sent = simulated(Limits(tokens_per_minute=10), 3, lambda n: 50)
    assert [at for at, _ in sent] == [0.0, 60.0, 120.0]


def test_fewer_are_in_flight_once_for_all_that_were_sent_before_and_more_again_with_time() -> None:
    async def main() -> None:
        pace = Pace(10)
        tickets = [await pace.enter() for _ in range(10)]
        for ticket in tickets[:5]:
            pace.leave(ticket, "overloaded")
        assert (pace.window, pace.round) == (7.0, 1)
        for ticket in tickets[5:]:
            pace.leave(ticket, "good")
        for _ in range(100):
            ticket = await pace.enter()
            pace.leave(ticket, "good")
        assert pace.window == 10.0
        for _ in range(100):
            ticket = await pace.enter()
            pace.leave(ticket, "overloaded")
        assert pace.window == 1.0
        assert pace.in_flight == 0

    asyncio.run(main())


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 6))
@settings(max_examples=40)
def test_the_limit_is_never_passed_and_no_place_is_lost_when_waiters_give_up(
    given_up: list[bool], concurrency: int
) -> None:
    most = 0

    async def one(pace: Pace) -> None:
        nonlocal most
        ticket = await pace.enter()
        most = max(most, pace.in_flight)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            pace.leave(ticket, "good")

    async def main() -> None:
        pace = Pace(concurrency)
        tasks = [asyncio.ensure_future(one(pace)) for _ in given_up]
        await asyncio.sleep(0)
        for task, gives_up in zip(tasks, given_up, strict=True):
            if gives_up:
                task.cancel()
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pace.in_flight == 0
        await asyncio.wait_for(one(pace), 5)

    asyncio.run(main())
    assert most <= concurrency


def test_an_endpoint_of_its_own_limit_is_asked_by_fewer() -> None:
    assert Pace(32, Limits(concurrency=2)).limit == 2
    assert Pace(1, Limits(concurrency=2)).limit == 1


def test_what_one_client_spent_of_the_minute_the_next_one_has_not_got() -> None:
    clock = Clock()
    limits = Limits(tokens_per_minute=100, requests_per_minute=60)
    sent: list[float] = []

    async def spend(pace: Pace) -> None:
        ticket = await pace.enter(90)
        sent.append(clock.now)
        pace.leave(ticket, "good", 90)

    async def main() -> None:
        first = Pace(4, limits, clock=clock, sleep=clock.sleep)
        await clock.run(asyncio.gather(spend(first)))
        second = Pace(4, limits, before=first, clock=clock, sleep=clock.sleep)
        await clock.run(asyncio.gather(spend(second)))

    asyncio.run(main())
    assert sent == [0.0, 60.0]
