from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from palmswift.eval.asking.think import split_think
from palmswift.eval.fake.plan import THINK_FORMS, ThinkForm
from palmswift.eval.fake.server import Chunk, FakeServer, Plan, Unigram, thinking

QUESTION = {"role": "user", "content": "天？"}
LANGUAGE = Unigram({"天": 0.5, "地": 0.25, "<|im_end|>": 0.125}, unknown=0.001)


def post(server: FakeServer, route: str, body: dict[str, Any]) -> Any:
    return requests.post(f"{server.base_url}/{route}", json=body, timeout=10).json()


def test_a_references_logprobs_through_the_template_are_the_known_ones() -> None:
    answer = {"role": "assistant", "content": "天地"}
    asked = {"prompt_logprobs": 0, "max_tokens": 1, "add_generation_prompt": False}
    with FakeServer(language=LANGUAGE) as server:
        reply = post(server, "chat/completions", {"messages": [QUESTION, answer], **asked})
        url = f"{server.base_url.removesuffix('/v1')}/tokenize"
        prefix = requests.post(url, json={"messages": [QUESTION]}, timeout=10).json()["count"]
    told = reply["prompt_logprobs"]
    assert told[0] is None
    scored = [next(iter(entry.values())) for entry in told[prefix:]]
    assert [entry["decoded_token"] for entry in scored] == ["天", "地", "<|im_end|>", "\n"]
    total = sum(entry["logprob"] for entry in scored[:3])
    assert total == pytest.approx(math.log(0.5 * 0.25 * 0.125), abs=1e-12)


def test_echo_gives_the_same_logprobs_and_a_server_that_offers_neither_is_silent() -> None:
    body = {"prompt": "天地", "echo": True, "logprobs": 1, "max_tokens": 1}
    with FakeServer(language=LANGUAGE, default=Plan("地")) as server:
        choice = post(server, "completions", body)["choices"][0]
    assert choice["text"] == "天地地"
    assert choice["logprobs"]["token_logprobs"] == [None, math.log(0.25), math.log(0.25)]
    with FakeServer(language=LANGUAGE, offers=frozenset()) as server:
        choice = post(server, "completions", {**body, "prompt_logprobs": 1})["choices"][0]
        assert "prompt_logprobs" not in choice
        assert choice["text"] == "ok"


@pytest.mark.parametrize("form", THINK_FORMS)
def test_every_form_of_thinking_can_be_served(form: ThinkForm) -> None:
    with FakeServer(default=thinking(form, "好")) as server:
        message = post(server, "chat/completions", {"messages": [QUESTION]})["choices"][0][
            "message"
        ]
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    answer = split_think(message["content"], reasoning).answer
    assert answer is None if form == "unclosed" else (answer or "").startswith("好")


def test_a_server_alone_follows_a_script_and_tells_when_it_sent_what(tmp_path: Path) -> None:
    chunks = [{"text": "一"}, {"text": "二", "delay": 0.01}]
    script = tmp_path / "s.json"
    script.write_text(json.dumps({"plans": {"天？": [{"chunks": chunks}]}}))
    words = [sys.executable, "-m", "palmswift.eval.fake.server", str(script)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            url = child.stdout.readline().strip()
            body = {"messages": [QUESTION], "stream": True}
            reply = requests.post(f"{url}/chat/completions", json=body, timeout=10)
            [served] = requests.get(f"{url.removesuffix('/v1')}/served", timeout=10).json()
        finally:
            child.terminate()
    assert reply.content.count(b"data: ") == 5  # the role, two texts, the finish reason, the end
    assert served["events"][1] - served["events"][0] >= 0.01


def test_a_plain_reply_has_the_text_and_the_usage_of_its_chunks() -> None:
    plan = Plan(chunks=[Chunk(reasoning="想", tokens=3), Chunk("一二", tokens=2)])
    with FakeServer(default=plan) as server:
        reply = post(server, "chat/completions", {"messages": [QUESTION]})
    assert reply["choices"][0]["message"]["content"] == "一二"
    assert reply["choices"][0]["message"]["reasoning_content"] == "想"
    assert reply["usage"]["completion_tokens"] == 5
