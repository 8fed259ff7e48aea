"""Puts load on a server and notes when everything happened: by users, or by a timetable.

In a closed loop each of N users asks, waits for the whole answer, and asks again. In an open loop
requests are sent by a timetable that is fixed beforehand, whether or not answers have come: the
clock is absolute, so that a late request does not delay those after it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, NamedTuple

from palmswift.eval.asking.client import Client, encoded
from palmswift.eval.asking.reply import Failure, Reply
from palmswift.eval.asking.timing import quantile

Arrivals = Literal["poisson", "constant"]
Bodies = Callable[[int], dict[str, Any]]
"""The body of the request with a number, from 0."""

_BEAT = 0.01
"""Seconds between two looks at how late the event loop is."""


class Shot(NamedTuple):
    """One request of a load; a failed one is not sent again."""

    due: float
    """When it was to be sent, in seconds from the run's start; in a closed loop, when it was."""
    sent: float
    outcome: Reply | Failure

    @property
    def ended(self) -> float:
        """When its last byte came, in seconds from the run's start."""
        return self.sent + self.outcome.seconds


class Health(NamedTuple):
    """Whether the client was fit to measure."""

    lag_p99: float
    """Seconds that the event loop, or a request of the timetable, was late."""
    lag_max: float
    cpu: float
    """The client's processor time by wall time; 1 is a whole core."""


class Run(NamedTuple):
    """All requests of one load, the warm-up's left out."""

    shots: list[Shot]
    seconds: float
    """From the first request's sending to the last answer's end."""
    health: Health
    planned_rate: float | None
    """Requests a second of the timetable as it was drawn."""
    sent_rate: float | None
    """Requests a second as they were sent."""


class Amount(NamedTuple):
    """How much load is put on: so many requests, or for so many seconds."""

    requests: int | None
    seconds: float | None
    warmup: int
    """Requests before those that count."""


async def closed_loop(client: Client, bodies: Bodies, users: int, amount: Amount) -> Run:
    """So many users at once."""
    shots: list[Shot] = []

    async def user(numbers: Iterator[int], start: float) -> None:
        for number in numbers:
            data = encoded(bodies(number), stream=True)
            sent = time.perf_counter()
            outcome = await client.once(data, stream=True)
            if number >= amount.warmup:
                shots.append(Shot(sent - start, sent - start, outcome))

    async with _watched() as lags:
        cpu, began = time.process_time(), time.perf_counter()
        numbers = _numbers(amount, began)
        await _all([user(numbers, began) for _ in range(users)])
        health = _health(lags, cpu, began)
    return Run(shots, _duration(shots), health, None, None)


def _numbers(amount: Amount, start: float) -> Iterator[int]:
    """Numbers of requests, until enough were asked."""
    number = 0
    while True:
        if amount.requests is not None and number >= amount.requests + amount.warmup:
            return
        if amount.seconds is not None and time.perf_counter() - start > amount.seconds:
            return
        yield number
        number += 1


async def open_loop(
    client: Client,
    bodies: Bodies,
    rate: float,
    amount: Amount,
    *,
    arrivals: Arrivals = "poisson",
    seed: int = 0,
) -> Run:
    """So many requests a second on average, by the timetable of a seed."""
    timetable = timetable_of(rate, amount, arrivals, seed)
    encoded_bodies = [encoded(bodies(number), stream=True) for number in range(len(timetable))]
    shots: list[Shot] = []
    late: list[float] = []
    running: set[asyncio.Task[None]] = set()

    async def shoot(number: int, due: float, start: float) -> None:
        sent = time.perf_counter() - start
        late.append(sent - due)
        outcome = await client.once(encoded_bodies[number], stream=True)
        if number >= amount.warmup:
            shots.append(Shot(due, sent, outcome))

    async with _watched() as lags:
        cpu, began = time.process_time(), time.perf_counter()
        start = time.perf_counter() + 0.01
        try:
            for number, due in enumerate(timetable):
                if (remaining := start + due - time.perf_counter()) > 0:
                    await asyncio.sleep(remaining)
                task = asyncio.ensure_future(shoot(number, due, start))
                running.add(task)
                task.add_done_callback(running.discard)
            while running:
                await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
        health = _health([*lags, *late], cpu, began)
    shots.sort(key=lambda shot: shot.due)
    return Run(
        shots,
        _duration(shots),
        health,
        _rate([shot.due for shot in shots]),
        _rate(sorted(shot.sent for shot in shots)),
    )


def timetable_of(rate: float, amount: Amount, arrivals: Arrivals, seed: int) -> list[float]:
    """When requests are to be sent, in seconds from the start; the same for the same seed."""
    draw = random.Random(seed)
    wanted = None if amount.requests is None else amount.requests + amount.warmup
    times: list[float] = []
    now = 0.0
    while wanted is None or len(times) < wanted:
        if amount.seconds is not None and now > amount.seconds:
            break
        times.append(now)
        now = now + draw.expovariate(rate) if arrivals == "poisson" else len(times) / rate
    return times


def _rate(times: Sequence[float]) -> float | None:
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else None


def _duration(shots: Sequence[Shot]) -> float:
    if not shots:
        return 0.0
    return max(shot.ended for shot in shots) - min(shot.sent for shot in shots)


async def _all(work: Sequence[Awaitable[None]]) -> None:
    """Wait for all; none is left behind when one fails or we are stopped."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _watched() -> AsyncIterator[list[float]]:
    """Notes within the block how late the event loop is; old objects are left alone by the garbage
    collector meanwhile, whose pauses would be measured too."""
    lags: list[float] = []
    gc.collect()
    gc.freeze()
    task = asyncio.ensure_future(_watch(lags))
    try:
        yield lags
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        gc.unfreeze()


async def _watch(lags: list[float]) -> None:
    due = time.perf_counter()
    while True:
        due = max(due + _BEAT, time.perf_counter())
        await asyncio.sleep(due - time.perf_counter())
        lags.append(time.perf_counter() - due)


def _health(lags: Sequence[float], cpu: float, began: float) -> Health:
    ordered = sorted(lags) or [0.0]
    wall = max(time.perf_counter() - began, 1e-9)
    return Health(quantile(ordered, 0.99), ordered[-1], (time.process_time() - cpu) / wall)
