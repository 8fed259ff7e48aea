"""How true the client's clocks are: streams, timetables, Retry-After, and a queue's capacity.

python -m benchmarks.eval.clock

The fake server runs in a process of its own and notes when it hands each event to its socket, by
the clock that all processes of the machine share. Of 32 streams at once each event's arrival by the
client's account is held against that. A timetable's rate is held against what was sent; a
Retry-After against when the next request came; and the throughput that the closed loop of
`eval/bench.py` finds against the capacity of M/M/k queues, which is k by the mean service. The
record is benchmarks/records/eval-clock-DATE.json.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import requests

from benchmarks.eval.record import fake_server, write_record
from palmswift.eval.asking.client import Client, Reply, encoded
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.asking.timing import quantile
from palmswift.eval.fake.model import Capacity
from palmswift.eval.fake.server import FakeServer, Plan
from palmswift.eval.load.bench_load import Amount, closed_loop, open_loop
from palmswift.eval.load.bench_stats import result_of

STREAMS = 32


def body(text: str) -> dict[str, Any]:
    """A request whose question is `text`."""
    return {"model": "fake", "messages": [{"role": "user", "content": text}]}


def client_of(url: str) -> Client:
    """A client that sends nothing twice."""
    return Client(Endpoint(label="a", base_url=url), RetryPolicy(attempts=1), concurrency=STREAMS)


def chunk_plan(draw: random.Random) -> list[dict[str, Any]]:
    """Forty events, between 5 and 40 ms apart."""
    return [{"text": "字", "delay": round(draw.uniform(0.005, 0.04), 4)} for _ in range(40)]


def streams(folder: Path, waves: int) -> dict[str, Any]:
    """How late events of 32 streams are by the client's account, after the server sent them."""
    draw = random.Random(0)
    names = [f"{wave}-{n}" for wave in range(waves) for n in range(STREAMS)]
    script = {"plans": {name: [{"chunks": chunk_plan(draw)}] for name in names}}
    seen: dict[str, list[float]] = {}

    async def one(client: Client, name: str) -> None:
        data = encoded(body(name), stream=True)
        begin = time.perf_counter()
        outcome = await client.once(data, stream=True)
        assert isinstance(outcome, Reply)
        seen[name] = [begin + arrival for arrival in outcome.arrivals]

    async def run(url: str) -> None:
        async with client_of(url) as client:
            for wave in range(waves):
                await asyncio.gather(*(one(client, f"{wave}-{n}") for n in range(STREAMS)))

    with fake_server(script, folder) as url:
        quietly(run(url))
        served = requests.get(f"{url.removesuffix('/v1')}/served", timeout=60).json()
    errors: dict[str, list[float]] = {}
    for row in served:
        late = zip(row["events"], seen[row["question"]], strict=True)
        wave = row["question"].partition("-")[0]
        errors.setdefault(wave, []).extend(there - here for here, there in late)
    by_wave = [in_ms(sorted(late)) for late in errors.values()]
    gaps = sorted(
        abs((t2 - t1) - (h2 - h1))
        for row in served
        for h1, h2, t1, t2 in zip(
            row["events"],
            row["events"][1:],
            seen[row["question"]],
            seen[row["question"]][1:],
            strict=False,
        )
    )
    # Another job of the machine that wakes within one wave disturbs that wave alone.
    return {
        "events": sum(len(late) for late in errors.values()),
        "late_ms_median_of_waves": {
            name: statistics.median(wave[name] for wave in by_wave) for name in by_wave[0]
        },
        "late_ms_by_wave": by_wave,
        "gap_error_ms": in_ms(gaps),
    }


def timetable(folder: Path) -> dict[str, Any]:
    """The rate that was sent against that of the timetable, for two kinds of arrivals."""

    async def run(url: str, arrivals: Any) -> dict[str, float]:
        async with client_of(url) as client:
            done = await open_loop(
                client, lambda n: body(str(n)), 100.0, Amount(1500, None, 0), arrivals=arrivals
            )
        assert done.planned_rate is not None and done.sent_rate is not None
        return {
            "planned_per_second": round(done.planned_rate, 3),
            "error_percent": round(100 * abs(done.sent_rate / done.planned_rate - 1), 4),
            "late_p99_ms": round(done.health.lag_p99 * 1000, 3),
        }

    with fake_server({"default": {"delay": 0.05}}, folder) as url:
        return {kind: quietly(run(url, kind)) for kind in ("poisson", "constant")}


def retry_after(trials: int) -> dict[str, Any]:
    """How long after the moment that the server asked for the next request came."""
    late = []
    draw = random.Random(0)
    for _ in range(trials):
        wait = draw.uniform(0.05, 0.4)
        refusal = Plan(status=429, headers={"Retry-After": f"{wait:.3f}"})

        async def run(url: str) -> None:
            policy = RetryPolicy(attempts=2)
            async with Client(Endpoint(label="a", base_url=url), policy) as client:
                assert isinstance(await client.complete(body("a")), Reply)

        with FakeServer({"a": [refusal, Plan()]}) as server:
            quietly(run(server.base_url))
            first, second = server.served
        late.append(second.arrived - first.ended - wait)
    return {"trials": trials, "late_ms": in_ms(sorted(late))}


def queues(folder: Path) -> list[dict[str, Any]]:
    """What the closed loop finds of queues of known capacity."""
    found = []
    for workers, service, users in ((4, 0.04, 16), (8, 0.08, 40), (16, 0.1, 64)):
        count, seed = 100 * workers + 4 * users, 1
        script = {"workers": workers, "service": service, "seed": seed}

        async def run(url: str, users: int = users, count: int = count) -> Any:
            async with client_of(url) as client:
                amount = Amount(count, None, users)
                return await closed_loop(client, lambda n: body(str(n)), users, amount)

        with fake_server(script, folder) as url:
            result = result_of(users, quietly(run(url)))
        known = Capacity(workers, service).requests_per_second
        # What the server draws has not just the mean that it is drawn with.
        draw = random.Random(seed)
        drawn = [draw.expovariate(1 / service) for _ in range(count + users)]
        held = known * service / statistics.mean(drawn)
        found.append(
            {
                "workers": workers,
                "mean_service_s": service,
                "users": users,
                "requests": count,
                "capacity_per_second": known,
                "capacity_as_drawn_per_second": round(held, 2),
                "found_per_second": round(result.requests_per_second, 2),
                "error_percent": round(100 * (result.requests_per_second / held - 1), 2),
            }
        )
    return found


def quietly(work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` gives, without the garbage collector looking at old objects."""
    gc.collect()
    gc.freeze()
    return asyncio.run(work)


def in_ms(ordered: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and largest of sorted seconds, in milliseconds."""
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(quantile(ordered, share) * 1000, 3) for name, share in shares.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the record; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--waves", type=int, default=5)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured: dict[str, Any] = {
            "streams_at_once": STREAMS,
            "streams": streams(folder, arguments.waves),
            "timetable_100_per_second": timetable(folder),
            "retry_after": retry_after(10),
            "mmk": queues(folder),
        }
    promises = {
        "stream_error_p99_at_most_2_ms": measured["streams"]["late_ms_median_of_waves"]["p99"] <= 2,
        "rate_error_at_most_1_percent": all(
            each["error_percent"] <= 1 for each in measured["timetable_100_per_second"].values()
        ),
        "retry_after_within_50_ms": measured["retry_after"]["late_ms"]["max"] <= 50,
        "capacity_within_5_percent": all(abs(q["error_percent"]) <= 5 for q in measured["mmk"]),
    }
    measured["promises"] = promises
    print(json.dumps(measured, indent=1))
    what = "the client's clocks against the server's, a timetable and known queues"
    command = f"python -m benchmarks.eval.clock --waves {arguments.waves}"
    print(write_record("clock", what, command, ("aiohttp", "msgspec"), measured))
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
