"""What a run makes of every fault that a server can show: one matrix."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from support_eval import QUICK

from palmswift.eval.asking.client import Client, Failure, Reply
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.fake.server import Chunk, FakeServer, Plan

GOOD = Plan("您好")
LATE = 60.0
"""Longer than any policy here waits."""
SILENCE: Mapping[str, Any] = {"total": LATE, "first_byte": 0.8}
LENGTH: Mapping[str, Any] = {"total": 0.8, "first_byte": LATE}


class Fault(NamedTuple):
    """What the server does with the first requests, and what is promised of the run."""

    name: str
    plan: Plan
    kind: str | None
    """Of the failure when it stays; None: it is no fault to the client."""
    again: bool
    """Whether it is asked again."""
    stream: bool = False
    told: str = ""
    """A part of the message."""
    policy: Mapping[str, Any] = MappingProxyType({})


def status(code: int, again: bool, **fields: Any) -> Fault:
    return Fault(f"status-{code}", Plan(status=code), "status", again, told=str(code), **fields)


def error(name: str, document: dict[str, Any], again: bool, *, stream: bool = False) -> Fault:
    plan = Plan("一二三四", error=document)
    where = "stream" if stream else "200"
    told = str(document.get("message", ""))
    return Fault(f"error-in-{where}-{name}", plan, "server_error", again, stream, told)


BUSY = {"message": "busy", "type": "overloaded_error", "code": None}
WRONG = {"message": "no such model", "type": "invalid_request_error", "code": 404}
BROKEN = {"message": "engine died", "type": "Internal", "code": 500}
PAGE = b"<html>welcome</html>"

FAULTS = [
    *(status(code, again=False) for code in (400, 401, 403, 404, 405, 413, 422, 501)),
    *(status(code, again=True) for code in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
    Fault("redirect", Plan(status=307, headers={"Location": "/x"}), "status", False, told="/x"),
    Fault("no-content", Plan(status=204, body=b" "), "status", False, told="204"),
    Fault("html", Plan(body=PAGE, content_type="text/html"), "garbage", False, told="text/html"),
    Fault("cut-json", Plan(body=b'{"choices": [{"mess'), "garbage", False, told="not JSON"),
    Fault("empty", Plan(body=b" "), "garbage", False, told="not JSON"),
    Fault("latin-1", Plan(body=b'{"a": "\xe9"}'), "garbage", False, told="not JSON"),
    Fault("other-json", Plan(body=b'{"ok": true}'), "garbage", False, told="no choices"),
    Fault("nested", Plan(body=b"[" * 100_000), "garbage", False, told="not JSON"),
    Fault("no-text", Plan(body=b'{"choices": [{"message": {}}]}'), "garbage", False, told="text"),
    Fault("json-as-text", Plan("您好", content_type="text/plain"), None, False),
    error("busy", BUSY, again=True),
    error("wrong", WRONG, again=False),
    Fault("drop-before", Plan(drop="before"), "dropped", True),
    Fault("drop-within", Plan(drop="within"), "dropped", True),
    Fault("late-first-byte", Plan(delay=LATE), "timeout", False, False, "first byte", SILENCE),
    Fault("late", Plan(delay=LATE), "timeout", False, False, "no whole reply", LENGTH),
    Fault("endless", Plan(endless=True), "too_large", False, policy={"largest": 1 << 20}),
    Fault("stream-drop-before", Plan(drop="before"), "dropped", True, True),
    Fault("stream-drop-within", Plan("一二三四", drop="within"), "dropped", True, True),
    Fault("stream-torn", Plan("一二", torn=True), "dropped", True, True, "before the reply"),
    Fault("stream-garbage", Plan(chunks=[Chunk(raw=b"data: {\n\n")]), "garbage", False, True),
    Fault("stream-comment", Plan(chunks=[Chunk(raw=b": hi\n\n"), "您好"]), None, False, True),
    Fault("stream-html", Plan(body=PAGE, content_type="text/html"), "garbage", False, True),
    Fault("stream-ignored", Plan(body=b'{"choices": [{"message": {"content": "\xe6\x82\xa8'
          b'\xe5\xa5\xbd"}}]}'), None, False, True),
    Fault("stream-stops", Plan(chunks=["一", Chunk("二", delay=LATE)]), "timeout", False, True,
          "nothing came", SILENCE),
    Fault("stream-too-long", Plan(chunks=[Chunk("字", delay=0.1)] * 600), "timeout", False, True,
          "no whole reply", LENGTH),
    Fault("stream-endless", Plan(endless=True), "too_large", False, True,
          policy={"largest": 1 << 20}),
    Fault("stream-429", Plan(status=429), "status", True, True, "429"),
    error("broken", BROKEN, again=True, stream=True),
    error("wrong", WRONG, again=False, stream=True),
]  # fmt: skip


def asked(plans: Sequence[Plan], fault: Fault, *, attempts: int = 3) -> tuple[Reply | Failure, int]:
    """What comes of one request when the server follows the plans, and how many came there."""
    policy = QUICK.model_copy(update={"attempts": attempts, **fault.policy})

    async def run(url: str) -> Reply | Failure:
        body = {"model": "fake", "messages": [{"role": "user", "content": "你好"}]}
        async with Client(Endpoint(label="a", base_url=url), policy) as client:
            return await client.complete(body, stream=fault.stream)

    with FakeServer({"你好": plans}) as server:
        return asyncio.run(run(server.base_url)), len(server.requests)


def test_the_matrix_has_forty_faults() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_that_stays_is_told_by_its_kind_and_asked_as_often_as_may_help(
    fault: Fault,
) -> None:
    outcome, requests = asked([fault.plan], fault)
    if fault.kind is None:
        assert isinstance(outcome, Reply)
        assert outcome.content == "您好"
        return
    assert isinstance(outcome, Failure)
    assert (outcome.kind, fault.told in outcome.message) == (fault.kind, True), outcome.message
    assert requests == outcome.attempts == len(outcome.retried) + 1 == (3 if fault.again else 1)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.again], ids=lambda fault: fault.name)
def test_a_fault_that_passes_costs_an_attempt_and_no_answer(fault: Fault) -> None:
    outcome, requests = asked([fault.plan, GOOD], fault)
    assert isinstance(outcome, Reply)
    assert (outcome.content, outcome.attempts, requests) == ("您好", 2, 2)
    assert [failure.kind for failure in outcome.retried] == [fault.kind]


def outcome_at(url: str, policy: RetryPolicy) -> Reply | Failure:
    async def run() -> Reply | Failure:
        async with Client(Endpoint(label="a", base_url=url), policy) as client:
            return await client.complete({"model": "m", "messages": []})

    return asyncio.run(run())


def test_a_name_that_nobody_has_and_a_closed_port_are_unreachable() -> None:
    with FakeServer() as server:
        gone = server.base_url
    for url in (gone, "http://no-such-host.invalid/v1"):
        outcome = outcome_at(url, QUICK)
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.attempts) == ("unreachable", 3)


@contextmanager
def full_port() -> Iterator[int]:
    """A port that listens but lets nobody in: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


def test_a_server_that_lets_nobody_in_is_given_up_on_after_the_connect_timeout() -> None:
    with full_port() as port:
        policy = QUICK.model_copy(update={"connect": 0.2, "attempts": 2})
        outcome = outcome_at(f"http://127.0.0.1:{port}/v1", policy)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.attempts) == ("unreachable", 2)
    assert "no connection in 0.2 s" in outcome.message


@pytest.mark.parametrize("header", ["0.2", "date"])
def test_nothing_is_sent_to_an_endpoint_before_the_time_that_it_asked_for(header: str) -> None:
    import email.utils
    import time

    when = time.time() + 1.2
    value = email.utils.formatdate(when, usegmt=True) if header == "date" else header
    plans: dict[str, Plan | Sequence[Plan]] = {
        "a": [Plan(status=429, headers={"Retry-After": value}), GOOD],
        "b": GOOD,
    }

    async def run(url: str) -> list[Reply | Failure]:
        async with Client(Endpoint(label="a", base_url=url), QUICK) as client:
            first = asyncio.ensure_future(client.complete(_body("a")))
            while client.pace.round == 0:
                await asyncio.sleep(0.001)
            return [*await asyncio.gather(first, client.complete(_body("b")))]

    with FakeServer(plans) as server:
        outcomes = asyncio.run(run(server.base_url))
        arrived = [served.arrived for served in server.served]
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    wait = int(when) - (when - 1.2) if header == "date" else 0.2
    assert min(arrived[1:]) - arrived[0] >= wait - 0.01


def _body(question: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": question}]}
