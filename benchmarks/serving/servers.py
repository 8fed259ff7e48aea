"""The servers that are compared: the same small Qwen3, each started as its users start it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.eval.record import ROOT
from palmswift.deploy.ports import free_port
from palmswift.deploy.readiness import ask
from palmswift.process import ProcessGroup
from palmswift.recipes.load import load_checked

NAME = "tiny"
BIN = Path(sys.executable).parent
_PATIENCE = 200.0

PHASES = {
    "importing": r"run sh:",
    "loading the model": r"\] args: |Starting to load model",
    "first completion": r"Started server process",
}
"""What begins with a line of the log that matches."""


class Kind(NamedTuple):
    """One way to serve the model."""

    label: str
    words: Sequence[str]
    """`{model}` and `{port}` stand for themselves."""
    model: str = NAME
    """What clients send; `{model}` is the folder."""
    env: dict[str, str] = {}  # noqa: RUF012  # read only
    own: bool = False
    """deploy/serve.py: the command ends when the server is ready."""


class Running(NamedTuple):
    """A server that answers."""

    url: str
    model: str
    port: int
    phases: dict[str, float]
    """Seconds by phase; `all` from the command to the first completion."""


_SWIFT = ("deploy", "--model", "{model}", "--served_model_name", NAME, "--port", "{port}")
_OURS = ("deploy/serve.py", "--model", "{model}", "--name", NAME, "--port", "{port}", "--detach")
_LIMITS = ("max_batch_size=32", "torch_dtype=float32", "template=qwen3", "enable_thinking=false")
_SETS = tuple(word for limit in _LIMITS for word in ("--set", limit))
_TYPE = ("--set", "model_type=qwen3")

SWIFT_DEPLOY = Kind(
    "swift deploy, bare",
    (
        *(str(BIN / "swift"), *_SWIFT, "--host", "127.0.0.1", "--infer_backend", "transformers"),
        *(word for limit in _LIMITS for word in f"--{limit.replace('=', ' ')}".split()),
        *("--model_type", "qwen3"),
    ),
)
OURS = Kind("serve.py", (sys.executable, *_OURS, *_SETS, *_TYPE), own=True)
KEYED = OURS._replace(label="serve.py, with a key", env={"PALMSWIFT_API_KEY": "a-key-of-a-test"})
VLLM = Kind(
    "serve.py --server vllm",
    (
        *(sys.executable, *_OURS, *_SETS, *_TYPE, "--server", "vllm"),
        *("--set", "vllm_max_model_len=1024", "--set", "vllm_max_num_seqs=32"),
    ),
    env={"VLLM_CPU_KVCACHE_SPACE": "1"},
    own=True,
)
TRANSFORMERS = Kind(
    "transformers serve",
    (
        *(str(BIN / "transformers"), "serve", "{model}", "--port", "{port}"),
        *("--host", "127.0.0.1", "--dtype", "float32", "--device", "cpu", "--continuous-batching"),
    ),
    model="{model}",
)


def environment(kind: Kind) -> dict[str, str]:
    """What every server gets, and its own: no GPU, no hub, one thread for the arithmetic."""
    common = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    offline = {"HF_HUB_OFFLINE": "1", "MODELSCOPE_OFFLINE": "1"}
    return {**common, **offline, **kind.env}


def tiny_model(folder: Path) -> Path:
    """The CPU demo's Qwen3 with random weights, made where it is not there yet."""
    out = folder / "tiny-qwen3"
    if not (out / "config.json").is_file():
        spec = load_checked("demo_cpu").recipe.model.embedded
        assert spec is not None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        words = [sys.executable, "-m", "palmswift.hub.embedded", str(folder / "spec.json")]
        subprocess.run([*words, str(out)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return out


@contextlib.contextmanager
def served(kind: Kind, model: Path, folder: Path) -> Iterator[Running]:
    """The server, ready and with the seconds of its start; gone after the block."""
    port = free_port()
    words = [word.format(model=model, port=port) for word in kind.words]
    start = _ours if kind.own else _bare
    with start(words, kind, port, folder) as (name, phases):
        name = name.format(model=model)
        yield Running(f"http://127.0.0.1:{port}/v1", name, port, phases)


@contextlib.contextmanager
def _ours(
    words: list[str], kind: Kind, port: int, folder: Path
) -> Iterator[tuple[str, dict[str, float]]]:
    begin = time.perf_counter()
    env = {**os.environ, **environment(kind)}
    done = subprocess.run(
        [*words, "--json"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=_PATIENCE
    )
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        raise RuntimeError(f"{words}: {done.stderr[-2000:]}")
    try:
        phases = json.loads(done.stdout)["ready_seconds"]
        yield kind.model, {**phases, "all": round(seconds, 2)}
    finally:
        stop = [sys.executable, "deploy/stop.py", "--port", str(port)]
        subprocess.run(stop, cwd=ROOT, check=True, capture_output=True)


@contextlib.contextmanager
def _bare(
    words: list[str], kind: Kind, port: int, folder: Path
) -> Iterator[tuple[str, dict[str, float]]]:
    begin = time.perf_counter()
    log = folder / f"{port}.log"
    with ProcessGroup(words, log=log, env=environment(kind)) as process:
        marks: dict[str, float] = {}
        name = kind.model.format(model=words[2])
        while True:
            marks |= _marks(log, marks, time.perf_counter() - begin)
            if ask(f"http://127.0.0.1:{port}/v1", name, None, 30).kind == "ok":
                break
            if process.poll() is not None or time.perf_counter() - begin > _PATIENCE:
                raise RuntimeError(f"{words} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield kind.model, _phases(marks, time.perf_counter() - begin)


def _marks(log: Path, known: dict[str, float], now: float) -> dict[str, float]:
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    fresh = (name for name in PHASES if name not in known)
    return {name: now for name in fresh if re.search(PHASES[name], text)}


def _phases(marks: dict[str, float], ready: float) -> dict[str, float]:
    """Seconds of each phase, from when each began."""
    begun = {"starting": 0.0, **marks}
    ends = [*list(begun.values())[1:], ready]
    phases = {name: round(end - at, 2) for (name, at), end in zip(begun.items(), ends, strict=True)}
    return {**phases, "all": round(ready, 2)}
