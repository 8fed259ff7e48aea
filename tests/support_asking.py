"""What is asked of every real server: its own fingerprint, streams, the load test."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from support_e2e import RunningServer

from palmswift.eval.asking.client import Client, Reply
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.fingerprint import Fingerprint, same, take
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.load.bench_report import BenchReport

WITHOUT_THINKING: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}


def replies(server: RunningServer, *bodies: dict[str, Any], **how: Any) -> list[Reply]:
    """The replies to requests, one after the other."""

    async def run() -> list[Reply]:
        endpoint = Endpoint(label="real", base_url=server.url)
        async with Client(endpoint, RetryPolicy(attempts=2, total=120)) as client:
            outcomes = [await client.complete({"model": server.model, **b}, **how) for b in bodies]
        found = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        assert len(found) == len(bodies), outcomes
        return found

    return asyncio.run(run())


def fingerprint(server: RunningServer, *, beside: int = 0) -> Fingerprint:
    """The model's fingerprint, taken while so many other requests are under way."""

    async def run() -> Fingerprint:
        endpoint = Endpoint(label="real", base_url=server.url)
        async with Client(endpoint, RetryPolicy(total=120), concurrency=64) as client:
            message = [{"role": "user", "content": "几点开门？"}]
            body = {"model": server.model, "messages": message, "max_tokens": 64}
            others = [asyncio.ensure_future(client.complete(body)) for _ in range(beside)]
            taken = await take(client, server.model)
            await asyncio.gather(*others)
            return taken

    return asyncio.run(run())


def check_recognised(server: RunningServer) -> Fingerprint:
    """The server's model is recognised again, alone and beside other requests."""
    known = fingerprint(server)
    assert known.level == "weights", known.why
    assert "created" not in known.card
    assert same(known, fingerprint(server))
    assert same(known, fingerprint(server, beside=8))
    return known


def check_stream_is_whole(
    server: RunningServer, messages: list[dict[str, str]], **extra: Any
) -> str:
    """The answer is the same streamed and at once; the stream's clock is in order. The answer."""
    body = {"messages": messages, "max_tokens": 64, "temperature": 0, **extra}
    [whole], [streamed] = replies(server, body), replies(server, body, stream=True)
    assert streamed.content == whole.content
    assert streamed.completion_tokens == whole.completion_tokens
    timings = streamed.timings
    assert timings.first_byte is not None and timings.first_content is not None
    assert timings.last_text is not None
    assert 0 < timings.first_byte <= timings.first_content <= timings.last_text <= streamed.seconds
    assert timings.events > 1
    return whole.content or ""


def check_bench(server: RunningServer, out: Path) -> None:
    """The load test counts every request, and its times are in order."""
    finished = server.workshop.call(
        *("python", "eval/bench.py", "--endpoint", server.url, "--model", server.model),
        *("--concurrency", "1", "4", "--requests", "8", "--max-tokens", "24", "--out", out),
    )
    assert finished.exit_code in (0, 4), finished.said
    report = BenchReport.model_validate(json.loads((out / "bench.json").read_text()))
    for level in report.levels:
        [run] = level.runs
        assert (run.requests, run.errors) == (8, 0)
        assert run.output_tokens_per_second is not None and run.tokens_per_event is not None
        assert run.ttft is not None and run.e2e is not None
        assert run.ttft.p50 <= run.e2e.p50
