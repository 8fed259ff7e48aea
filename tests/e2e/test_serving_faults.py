"""A keyed server of a run at a path with spaces and Chinese characters, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from support_e2e import Demo, RunningServer, listened_on, marked, served, wait_until_gone

from palmswift.deploy.ports import free_port
from palmswift.launchers.run_folder import RunFolder

pytestmark = pytest.mark.e2e

KEY = "a-key-nobody-knows"
AUTHORISED = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
ENVIRONMENT = {"PALMSWIFT_API_KEY": KEY}
MILLION = 1_000_000


@pytest.fixture(scope="module")
def run(lora_demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the LoRA demo's run at such a path."""
    folder = tmp_path_factory.mktemp("serving") / "我的 运行" / "诊所 1"
    return shutil.copytree(lora_demo.run.path, folder, symlinks=True)


@pytest.fixture(scope="module")
def keyed(run: Path, lora_demo: Demo) -> Iterator[RunningServer]:
    """The run, served with a key."""
    with served(lora_demo.workshop, "--run", run, env=ENVIRONMENT) as running:
        yield running


def ask(server: RunningServer, path: str = "/v1/chat/completions", **changes: Any) -> int:
    """The status of one request; `changes` replace fields of its body, or `data` all of it."""
    message = {"role": "user", "content": changes.pop("content", "周一上班吗？")}
    headers = changes.pop("headers", AUTHORISED)
    data = changes.pop("data", None)
    body = {"model": server.model, "messages": [message], "max_tokens": 4, **changes}
    address = server.url.removesuffix("/v1") + path
    whole = json.dumps(body) if data is None else data
    return requests.post(address, data=whole, headers=headers, timeout=120).status_code


def test_it_is_served_from_that_path_and_found_to_be_the_trained_model(
    keyed: RunningServer, run: Path
) -> None:
    assert ask(keyed) == 200
    assert "the trained model" in keyed.started.document["parity"]
    assert str(run) in (run / "deploy" / f"{keyed.port}.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer another-key-1", f"Bearer {KEY}x", KEY, "Bearer ", "Bearer schlüssel"],
)
def test_a_wrong_key_is_refused(keyed: RunningServer, authorization: str | None) -> None:
    headers = {"Content-Type": "application/json"}
    said = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    assert ask(keyed, headers={**headers, **said}) == 400


def test_no_content_of_a_request_and_no_key_is_in_the_log(keyed: RunningServer, run: Path) -> None:
    assert ask(keyed, content="a word that nobody else says: xylophone") == 200
    log = (run / "deploy" / f"{keyed.port}.log").read_text(encoding="utf-8")
    assert "POST /v1/chat/completions" in log
    assert "xylophone" not in log
    assert KEY not in log


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 0},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": []},
        {"max_tokens": -1},
        {"content": "\ud800"},
        {"content": "a " * 20_000},
        {"path": "/infer/", "data": "{"},
        {"path": "/infer/", "data": "[]"},
        {"path": "/infer/", "data": '{"infer_requests": [{"x": 1}]}'},
    ],
)
def test_what_ms_swift_itself_fails_on_is_refused(
    keyed: RunningServer, changes: dict[str, Any]
) -> None:
    assert 400 <= ask(keyed, **changes) < 500
    assert ask(keyed) == 200


def test_a_flood_is_answered_or_refused_in_bounded_memory(keyed: RunningServer) -> None:
    before, peak, over = resident(keyed), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], resident(keyed))

    watcher = threading.Thread(target=watch)
    watcher.start()
    body = {"model": keyed.model, "messages": [{"role": "user", "content": "周一上班吗？"}]}
    small = flood(keyed, json.dumps({**body, "max_tokens": 2}).encode(), 250)
    large = flood(keyed, b"x" * (8 * MILLION), 64)
    models = requests.get(f"{keyed.url}/models", headers=AUTHORISED, timeout=60)
    over.set()
    watcher.join()
    assert set(small) <= {200, 503}
    assert small[200] > 0
    # 413 comes while the client still sends, which some of them see as a reset connection.
    assert set(large) <= {413, 503, -1}
    assert peak[0] - before < 256 * MILLION  # half of what was sent
    assert models.status_code == 200
    assert ask(keyed) == 200


def resident(server: RunningServer) -> int:
    """Bytes of memory of its processes, without those that are just ending."""
    sizes = []
    for process in marked(server.started.mark):
        try:
            sizes.append(process.memory_info().rss)
        except psutil.Error:
            continue
    return sum(sizes)


def flood(server: RunningServer, body: bytes, requests_at_once: int) -> Counter[int]:
    """How often each status came, -1 for a connection that was closed on us."""
    found: Counter[int] = Counter()

    def one() -> None:
        try:
            found[ask(server, data=body)] += 1
        except requests.ConnectionError:
            found[-1] += 1

    threads = [threading.Thread(target=one) for _ in range(requests_at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_torn_weights_and_a_missing_adapter_are_refused_before_anything_starts(
    run: Path, lora_demo: Demo, tmp_path: Path
) -> None:
    torn = RunFolder(shutil.copytree(run, tmp_path / "torn", symlinks=True))
    weights = torn.path / str(torn.facts("train")["checkpoint"]) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    serve = ("python", "deploy/serve.py", "--run", torn.path, "--port", str(free_port()))
    refused = lora_demo.workshop.call(*serve)
    assert (refused.exit_code, refused.left) == (2, [])
    assert weights.name in refused.stderr
    shutil.rmtree(weights.parent)
    missing = lora_demo.workshop.call(*serve)
    assert (missing.exit_code, missing.left) == (2, [])
    assert "Traceback" not in missing.stderr


def test_a_client_sees_its_stream_break_with_the_server_and_a_new_one_starts(
    keyed: RunningServer, run: Path, lora_demo: Demo
) -> None:
    body = {
        "model": keyed.model,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "max_tokens": 2000,
        "temperature": 2.0,  # so that it hardly comes to an end of its own
    }
    with requests.post(
        f"{keyed.url}/chat/completions", json=body, headers=AUTHORISED, stream=True, timeout=120
    ) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith(b"data: ")
        for process in marked(keyed.started.mark):
            process.kill()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            assert b"data: [DONE]" not in list(lines)
    wait_until_gone(keyed.started.mark)
    status = lora_demo.workshop.call("python", "deploy/status.py", "--port", str(keyed.port))
    assert status.exit_code == 3
    assert status.stdout.startswith("gone")
    assert not listened_on(keyed.port)
    # Connections that the server closed are in TIME_WAIT, which ms-swift takes for a server.
    with served(lora_demo.workshop, "--run", run, env=ENVIRONMENT, port=keyed.port) as anew:
        assert ask(anew) == 200
