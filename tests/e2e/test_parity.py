"""The served model against the trained one: servers as they should be, and with planted faults."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from support_e2e import Demo, RunningServer, Workshop
from support_servers import SwiftServers

from palmswift.deploy.parity import compare
from palmswift.deploy.parity_judge import Limits, ParityReport
from palmswift.deploy.parity_truth import Truth, truth_of_run
from palmswift.deploy.spec import base_of_run, spec_of_run
from palmswift.recipes.recipe import SwiftValue

pytestmark = pytest.mark.e2e

LIMITS = Limits(tie=0.1, divergence=0.05)

OTHER_TEMPLATES = """
from swift.template import register_template
from swift.template.templates.qwen import Qwen3MixedTemplateMeta

register_template(
    Qwen3MixedTemplateMeta("never_stops", is_thinking=True, suffix=["<|endoftext|>"])
)
register_template(
    Qwen3MixedTemplateMeta(
        "begins_with_a_token",
        is_thinking=True,
        prefix=["<|endoftext|>"],
        system_prefix=["<|endoftext|><|im_start|>system\\n{{SYSTEM}}<|im_end|>\\n"],
    )
)
register_template(
    Qwen3MixedTemplateMeta(
        "other_words",
        is_thinking=True,
        prompt=["### Question: {{QUERY}}\\n### Answer: "],
        chat_sep=["\\n"],
    )
)
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServers]:
    """What starts the faulty servers."""
    with SwiftServers(tmp_path_factory.mktemp("servers") / "log") as started:
        yield started


@pytest.fixture(scope="module")
def truth(demo: Demo) -> Truth:
    """What the demo's trained model says to fewer prompts, in fewer tokens."""
    return truth_of_run(demo.run, most=6, max_tokens=32)


@pytest.fixture(scope="module")
def right(demo: Demo) -> dict[str, SwiftValue]:
    """The arguments of a server as it should be."""
    spec = spec_of_run(demo.run)
    return {"model": spec.model, "served_model_name": "m", "max_batch_size": 1, **spec.swift}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ms-swift plugin with templates like the training's, each with one fault."""
    file = tmp_path_factory.mktemp("plugin") / "other_templates.py"
    file.write_text(OTHER_TEMPLATES, encoding="utf-8")
    return file


def checked(truth: Truth, address: str) -> ParityReport:
    """The comparison with one server."""
    return compare(truth, "demo", address, None, None, LIMITS)


def test_a_served_run_is_the_trained_model_and_the_command_says_so(
    server: RunningServer, demo: Demo, workshop: Workshop
) -> None:
    words = ("--run", demo.run.path.name, "--against", server.url, "--json")
    finished = workshop.call("python", "deploy/parity.py", *words)
    assert finished.exit_code == 0, finished.said
    document = finished.document
    assert document["passed"] and document["tells_tokens"]
    assert {one["prompt"] for one in document["prompts"]} == {"same"}
    assert {one["answer"] for one in document["prompts"]} <= {"same", "tie"}
    assert document["divergence"] < 1e-3


def test_a_dead_server_is_an_error_of_the_endpoint_not_a_failed_check(
    demo: Demo, workshop: Workshop
) -> None:
    words = ("--run", demo.run.path.name, "--against", "127.0.0.1:9")
    finished = workshop.call("python", "deploy/parity.py", *words)
    assert finished.exit_code == 3, finished.said
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"enable_thinking": True}, "thinking"),
        ({"system": "You are a helpful assistant."}, "system_prompt"),
        ({"template": "begins_with_a_token"}, "extra_start_token"),
        ({"template": "other_words"}, "template"),
        ({"stop_words": ["。", "，"]}, "answer_cut"),
        ({"repetition_penalty": 1.8}, "generation_defaults"),
        ({"quant_method": "bnb", "quant_bits": 4, "torch_dtype": "bfloat16"}, "lossy_weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_of_the_server_is_named(
    servers: SwiftServers,
    truth: Truth,
    right: dict[str, SwiftValue],
    plugin: Path,
    changes: dict[str, SwiftValue],
    cause: str,
) -> None:
    address = servers.start({**right, "external_plugins": [str(plugin)], **changes})
    found = checked(truth, address)
    assert set(found.causes) == {cause}, found


def test_a_server_of_the_base_model_is_told_as_untrained(
    servers: SwiftServers, demo: Demo, truth: Truth, right: dict[str, SwiftValue]
) -> None:
    address = servers.start({**right, "model": base_of_run(demo.run).model})
    assert set(checked(truth, address).causes) == {"adapter_missing"}


def test_another_tokenizer_is_told_from_another_template(
    servers: SwiftServers, truth: Truth, right: dict[str, SwiftValue], tmp_path: Path
) -> None:
    other = tmp_path / "model"
    shutil.copytree(str(right["model"]), other)
    document = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    document["model"]["merges"] = document["model"]["merges"][:200]
    (other / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    address = servers.start({**right, "model": str(other)})
    assert set(checked(truth, address).causes) == {"tokenizer"}


def test_a_model_that_lost_its_end_token_is_told(
    servers: SwiftServers,
    truth: Truth,
    right: dict[str, SwiftValue],
    plugin: Path,
    tmp_path: Path,
) -> None:
    other = tmp_path / "model"
    shutil.copytree(str(right["model"]), other)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        document = json.loads((other / name).read_text(encoding="utf-8"))
        document |= {key: 0 for key in document if key == "eos_token_id"}
        document |= {key: "<|endoftext|>" for key in document if key == "eos_token"}
        (other / name).write_text(json.dumps(document), encoding="utf-8")
    changes: dict[str, SwiftValue] = {
        "model": str(other),
        "template": "never_stops",
        "external_plugins": [str(plugin)],
    }
    found = checked(truth, servers.start({**right, **changes}))
    assert set(found.causes) == {"stop_missing"}


def test_a_server_that_samples_is_told(
    servers: SwiftServers, truth: Truth, right: dict[str, SwiftValue]
) -> None:
    def hot(body: dict[str, Any]) -> None:
        body["temperature"] = 3.0

    with between(servers.start(right), hot) as address:
        assert "not_greedy" in checked(truth, address).causes


def test_a_prompt_that_loses_its_beginning_is_told(
    servers: SwiftServers, truth: Truth, right: dict[str, SwiftValue]
) -> None:
    """Only the turns are lost here; of the others the server sees what it should."""

    def last_turn(body: dict[str, Any]) -> None:
        body["messages"] = body["messages"][-1:] if len(body["messages"]) > 2 else body["messages"]

    with between(servers.start(right), last_turn) as address:
        found = checked(truth, address)
    assert found.causes == {"prompt_cut": ["three turns"]}


class between:
    """A proxy before a server that changes the requests; a context manager of its address."""

    def __init__(self, address: str, change: Callable[[dict[str, Any]], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self._give(requests.get(f"{address}{self.path}", timeout=60))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                change(body)
                self._give(requests.post(f"{address}{self.path}", json=body, timeout=60))

            def _give(self, reply: requests.Response) -> None:
                self.send_response(reply.status_code)
                self.send_header("Content-Length", str(len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
