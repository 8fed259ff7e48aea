from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_eval import QUICK

from palmswift.eval.asking.client import Client, Failure, Reply, is_loopback
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.reply import Gathered, Unusable, of_error, read_delta, read_reply
from palmswift.eval.asking.retry import asked_wait
from palmswift.eval.asking.timing import StreamClock
from palmswift.eval.fake.server import Chunk, FakeServer, Plan, Unigram, thinking


def ask(server: FakeServer, body: dict[str, Any], **how: Any) -> Reply | Failure:
    async def run() -> Reply | Failure:
        async with Client(Endpoint(label="a", base_url=server.base_url), QUICK) as client:
            return await client.complete({"model": "fake", **body}, **how)

    return asyncio.run(run())


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "天？"}]}
CALLS = [
    {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"day": 1}'}},
    {"id": "2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_is_the_same_streamed_and_at_once(stream: bool) -> None:
    chunks = [Chunk(reasoning="想", tokens=2), Chunk("天"), Chunk("气")]
    with FakeServer(default=Plan(chunks=chunks, tool_calls=CALLS)) as server:
        reply = ask(server, CHAT, stream=stream)
    assert isinstance(reply, Reply)
    assert (reply.content, reply.reasoning, reply.finish_reason) == ("天气", "想", "stop")
    assert (reply.completion_tokens, reply.tokens) == (4, 6)
    assert [call["function"] for call in reply.tool_calls or []] == [c["function"] for c in CALLS]
    assert reply.timings.events == (3 if stream else 0)
    assert (reply.timings.first_content is None) is not stream
    assert reply.raw["choices"][0]["message"]["content"] == "天气"


def test_a_tool_call_that_streams_in_pieces_is_put_together() -> None:
    pieces = [
        {"index": 0, "id": "1", "type": "function", "function": {"name": "weather"}},
        {"index": 0, "function": {"arguments": '{"day"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        "nonsense",
    ]
    events = [{"choices": [{"delta": {"tool_calls": [piece]}}]} for piece in pieces]
    last = {"choices": [{"delta": {}, "finish_reason": "tool_calls", "logprobs": {"content": [1]}}]}
    gathered = Gathered("chat", StreamClock(0.0))
    for event in [*events, last, {"choices": [], "usage": {"total_tokens": 3}}]:
        gathered.add(json.dumps(event).encode(), 1.0)
    gathered.add(b"[DONE]", 1.0)
    gathered.add(b"what comes after the end is nothing", 1.0)
    parts = gathered.parts("m")
    assert parts.tool_calls == [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"day": 1}'}}
    ]
    assert parts.logprobs == {"content": [1]}
    assert parts.usage == {"total_tokens": 3}
    assert parts.raw["choices"][0]["message"]["tool_calls"] == parts.tool_calls


@pytest.mark.parametrize("stream", [False, True])
def test_a_bare_completion_has_its_text_and_log_probabilities(stream: bool) -> None:
    body = {"prompt": "天", "echo": True, "logprobs": 1}
    with FakeServer(default=Plan("地"), language=Unigram({"地": 0.5})) as server:
        reply = ask(server, body, route="completion", stream=stream)
    assert isinstance(reply, Reply)
    assert reply.content == ("地" if stream else "天地")
    assert stream or reply.logprobs["tokens"] == ["天", "地"]
    assert reply.raw["choices"][0]["text"] == reply.content


def test_thinking_in_tags_is_not_the_first_content() -> None:
    plan = thinking("closed", "好", "想一想")
    with FakeServer(default=plan) as server:
        reply = ask(server, CHAT, stream=True)
    assert isinstance(reply, Reply)
    first, content = reply.timings.first_reasoning, reply.timings.first_content
    assert first is not None and content is not None
    assert first <= content
    assert reply.timings.first_text == first


def test_a_refusal_is_the_answer() -> None:
    body = b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}'
    assert read_reply(body, "chat").content == "no"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "503"}, 503),
        ({"code": True, "type": "rate_limit_error"}, 429),
        ({"type": "server_error", "message": "x"}, 500),
        ({"code": "rate_limit_exceeded"}, 429),
        ({"type": "Service Unavailable"}, 503),
        ({"type": "invalid"}, None),
        ("just words", None),
    ],
)
def test_an_error_object_stands_for_a_status(error: Any, status: int | None) -> None:
    found = of_error(error)
    assert (found.kind, found.status) == ("server_error", status)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "delta", "content", "error", "usage", "tool_calls"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_json_makes_reading_fail_in_another_way_than_by_saying_what_it_lacks(
    document: Any,
) -> None:
    body = json.dumps(document).encode()
    for read in (read_reply, read_delta):
        try:
            read(body, "chat")
        except Unusable as error:
            assert error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        (
            {
                "Retry-After": "Thu, 01 Jan 1970 02:01:40 GMT",
                "Date": "Thu, 01 Jan 1970 02:01:30 GMT",
            },
            10.0,
        ),
        ({"Retry-After": "soon", "Date": "never"}, None),
    ],
)
def test_the_wait_that_is_asked_for_is_read_by_the_servers_own_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert asked_wait(headers, now=60.0) == seconds


def test_a_key_is_sent_and_never_told_even_when_the_server_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVAL_TEST_KEY", "sk-secret")
    echo = Plan(status=400, body=b'{"error": "bad key sk-secret"}')

    async def run(url: str) -> Reply | Failure:
        endpoint = Endpoint(label="a", base_url=url, api_key_env="EVAL_TEST_KEY")
        async with Client(endpoint, QUICK) as client:
            return await client.complete(CHAT)

    with FakeServer(default=echo, api_key="sk-secret") as server:
        outcome = asyncio.run(run(server.base_url))
        assert server.headers[0]["authorization"] == "Bearer sk-secret"
    assert isinstance(outcome, Failure)
    assert "(key)" in outcome.message
    assert "sk-secret" not in repr(outcome)


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeServer() as gone:
        dead = gone.base_url
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, dead)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FakeServer() as server:
        assert isinstance(ask(server, CHAT), Reply)
    local = ["http://127.0.0.1/v1", "http://[::1]:8/v1", "http://localhost:1", "http://a.localhost"]
    assert all(map(is_loopback, local))
    assert not any(map(is_loopback, ["http://10.0.0.1/v1", "http://example.org", "http://[::2]/"]))
