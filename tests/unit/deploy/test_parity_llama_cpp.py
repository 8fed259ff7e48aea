"""llama.cpp tells tokens in a way of its own; a real HTTP server says what it says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from palmswift.deploy.parity_llama_cpp import answer, is_of_it
from palmswift.deploy.parity_probe import Probe
from palmswift.deploy.parity_prompts import Prompt

CONTENT = [
    {"id": 7, "token": "a", "logprob": -0.5},
    {"id": 9, "token": "云", "logprob": -0.25},  # of the tokens 8 and 9
    {"id": 2, "token": "", "logprob": -0.1},
]
CHOICE = {"message": {"content": "a云"}, "logprobs": {"content": CONTENT}, "finish_reason": "stop"}
TIMINGS = {"predicted_per_token_ms": 1.0}


class _Handler(BaseHTTPRequestHandler):
    """What llama.cpp's server replies; tokens only where they are asked for."""

    def do_GET(self) -> None:
        self._send({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/apply-template":
            self._send({"prompt": f"<{body['messages'][0]['content']}>"})
        elif self.path == "/tokenize":
            self._send({"tokens": [len(body["content"]), int(body["parse_special"])]})
        else:
            told: dict[str, Any] = {"choices": [CHOICE], "timings": TIMINGS}
            told["usage"] = {"prompt_tokens": 2}
            if body.get("return_tokens") and body.get("verbose"):
                told["__verbose"] = {"tokens": [7, 8, 9, 2]}
            self._send(told)

    def _send(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    """A server of that kind."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_its_tokens_are_told_prompt_and_answer(address: str) -> None:
    with Probe(address, None, None) as probe:
        messages = [{"role": "user", "content": "hi"}]
        seen = probe.observe(Prompt(name="p", messages=messages), 8).plain
    assert seen.prompt_ids == [4, 1]
    assert seen.ids == [7, 8, 9, 2]
    assert seen.logprobs == [-0.5, None, -0.25, -0.1]


def test_a_reply_without_tokens_is_compared_by_its_text() -> None:
    assert answer({"choices": [CHOICE]}) is None
    assert answer({"choices": [CHOICE], "__verbose": {}}) is None


def test_other_servers_are_not_taken_for_it() -> None:
    assert is_of_it({"timings": TIMINGS})
    assert not is_of_it({"choices": []})
    assert not is_of_it({"timings": None})
