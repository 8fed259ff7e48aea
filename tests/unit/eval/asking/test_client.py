from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support_eval import QUICK

from palmswift.errors import ChildError
from palmswift.eval.asking.client import Client, Failure, Reply
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.fake.server import FakeServer, Plan

BODY: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "你好"}]}


def ask(server: FakeServer, policy: RetryPolicy = QUICK) -> Reply | Failure:
    async def run() -> Reply | Failure:
        async with Client(Endpoint(label="a", base_url=server.base_url), policy) as client:
            return await client.complete(BODY)

    return asyncio.run(run())


def asked_with(plans: Plan | Sequence[Plan]) -> tuple[Reply | Failure, int]:
    """What the client makes of the plans, and how many requests it sent."""
    with FakeServer({"你好": plans}) as server:
        return ask(server), len(server.requests)


GOOD = Plan("您好，这里是云雀堂。")


def test_a_reply_is_kept_whole_with_its_parts() -> None:
    reply, asked = asked_with(Plan("您好", reasoning="想想", finish_reason="length"))
    assert isinstance(reply, Reply)
    assert (reply.content, reply.reasoning, reply.finish_reason) == ("您好", "想想", "length")
    assert reply.usage == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    assert reply.raw["choices"][0]["message"]["content"] == "您好"
    assert (reply.attempts, asked) == (1, 1)


@pytest.mark.parametrize(
    "fault",
    [
        Plan(status=429),
        Plan(status=429, headers={"Retry-After": "0.01"}),
        Plan(status=500),
        Plan(status=503, body=b"<html>busy</html>"),
        Plan(drop="before"),
        Plan(drop="within"),
    ],
    ids=["429", "retry-after", "500", "503", "drop-before", "drop-within"],
)
def test_a_passing_fault_is_asked_again(fault: Plan) -> None:
    reply, asked = asked_with([fault, fault, GOOD])
    assert isinstance(reply, Reply)
    assert (reply.content, reply.attempts, asked) == (GOOD.text, 3, 3)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_asked_once_and_quoted(status: int) -> None:
    failure, asked = asked_with([Plan(status=status, body=b'{"message": "too  long"}'), GOOD])
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.status, asked) == ("status", status, 1)
    assert failure.message == f'HTTP {status}: {{"message": "too long"}}'


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[]", "no choices"),
        (b"null", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": null}', "no choices"),
        (b'{"choices": [{}]}', "no choices"),
        (b'{"choices": [{"message": {"content": null}}]}', "no text"),
        (b'{"choices": [{"message": {"content": "\\ud800"}}]}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_reply_that_is_no_completion_is_an_error_that_shows_it(body: bytes, told: str) -> None:
    failure, asked = asked_with(Plan(body=body) if body else Plan(body=b" "))
    assert isinstance(failure, Failure)
    assert (failure.kind, asked) == ("garbage", 1)
    assert told in failure.message


def test_a_fault_that_stays_is_given_up_on() -> None:
    failure, asked = asked_with(Plan(status=502))
    assert isinstance(failure, Failure)
    assert (failure.attempts, failure.status, asked) == (3, 502, 3)


def test_a_slow_answer_is_a_timeout_and_not_sent_twice() -> None:
    with FakeServer(default=Plan(delay=2)) as server:
        failure = ask(server, QUICK.model_copy(update={"total": 0.2}))
        asked = len(server.requests)
    assert isinstance(failure, Failure)
    assert (failure.kind, asked) == ("timeout", 1)


def test_a_server_that_asks_for_too_long_a_wait_is_given_up_on() -> None:
    failure, asked = asked_with(Plan(status=429, headers={"Retry-After": "86400"}))
    assert isinstance(failure, Failure)
    assert "86400" in failure.message
    assert asked == 1


def model_of(endpoint: Endpoint) -> str:
    async def run() -> str:
        async with Client(endpoint, QUICK) as client:
            return await client.model()

    return asyncio.run(run())


def test_the_servers_first_model_is_taken_unless_one_is_named() -> None:
    with FakeServer(models=["one", "two"]) as server:
        assert model_of(Endpoint(label="a", base_url=server.base_url)) == "one"
        assert model_of(Endpoint(label="a", base_url=server.base_url, model="two")) == "two"


def test_a_server_that_is_not_there_lists_nothing_or_wants_a_key_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeServer() as server:
        gone = server.base_url
    with pytest.raises(ChildError, match="connection refused"):
        model_of(Endpoint(label="a", base_url=gone))
    with FakeServer(models=[]) as server, pytest.raises(ChildError, match="lists no models"):
        model_of(Endpoint(label="a", base_url=server.base_url))
    monkeypatch.setenv("EVAL_TEST_KEY", "right")
    with FakeServer(api_key="right") as server:
        with pytest.raises(ChildError, match="refuses the key"):
            model_of(Endpoint(label="a", base_url=server.base_url))
        keyed = Endpoint(label="a", base_url=server.base_url, api_key_env="EVAL_TEST_KEY")
        assert model_of(keyed) == "fake"


def streamed(plan: Plan) -> str:
    async def run(server: FakeServer) -> str:
        async with Client(Endpoint(label="a", base_url=server.base_url), QUICK) as client:
            return "".join([delta.content async for delta in client.stream(BODY)])

    with FakeServer(default=plan) as server:
        return asyncio.run(run(server))


def test_a_stream_gives_the_text_in_pieces() -> None:
    assert streamed(Plan(chunks=["您", "好，", "😀"])) == "您好，😀"


@pytest.mark.parametrize(
    "plan",
    [
        Plan("一二三四", drop="within"),
        Plan(status=500),
        Plan(body=b"data: nonsense\n\n"),
        Plan(body=b'data: {"error": {"message": "out of memory"}}\n\n'),
    ],
)
def test_a_stream_that_breaks_is_an_error(plan: Plan) -> None:
    with pytest.raises(ChildError):
        streamed(plan)
