"""Trains the same recipe by every engine that runs on a CPU, and compares each logged loss.

`python -m benchmarks.engines.verify [--packages DIR] [CASE ...]` trains `demo_cpu` a few steps in
one process, and then by torchrun, DeepSpeed ZeRO-2 and ZeRO-3, FSDP2 and Ray with two processes,
all through `launchers/train.py`. A step is of the same rows each time, so every loss has to be that
of one process within the case's tolerance, and the checkpoint has to be whole; else the exit code
is 1. The record of the day is added to, case by case.

DeepSpeed and Ray are extras of palmswift; `--packages DIR` names a folder that has them
(`uv pip install --target DIR ...`) where the environment does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.files import write_json
from palmswift.launchers.checkpoint_files import missing_parts, read_document
from palmswift.launchers.engines.place import free_port
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.training_log import TrainingLog
from palmswift.process import ProcessGroup

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
ROWS = "data/samples/clinic/val.jsonl"
"""64 rows: an even number, for what is over is left out by ms-swift."""

COMMON: Mapping[str, object] = {
    **{"data.val_ratio": 0, "swift.eval_strategy": "no", "swift.logging_steps": 1},
    **{"swift.per_device_train_batch_size": 5, "swift.gradient_accumulation_steps": 2},
    **{"swift.max_steps": STEPS, "swift.save_steps": STEPS, "recovery.attempts": 1},
}
BF16: Mapping[str, object] = {"swift.torch_dtype": "bfloat16"}
TWO: Mapping[str, object] = {"launch.processes": 2}


class Case(NamedTuple):
    """One way to train."""

    settings: Mapping[str, object]
    compared_with: str = ""
    tolerance: float = 0.0
    """Greatest difference of a logged loss from that case's."""
    needs: str = ""
    """The package that it runs by."""


CASES: Mapping[str, Case] = {
    "one": Case({}),
    "one-bf16": Case(BF16),
    "ddp": Case(TWO, "one", 1e-4),
    "fsdp2": Case({**TWO, "launch.strategy": "fsdp2"}, "one", 1e-4),
    "zero2": Case({**TWO, **BF16, "launch.strategy": "zero2"}, "one-bf16", 1e-2, "deepspeed"),
    "zero3": Case({**TWO, **BF16, "launch.strategy": "zero3"}, "one-bf16", 1e-2, "deepspeed"),
    # Ray hands out GPUs alone, so the cluster has two invented ones, and the workers use none.
    "ray": Case(
        {**TWO, "launch.scheduler": "ray", "budget.gpu_mib": 1, "swift.use_cpu": True},
        *("one", 1e-4, "ray"),
    ),
}


def train(case: Case, env: Mapping[str, str]) -> dict[str, Any]:
    """What a case came to: `losses`, `seconds`, `exit_code`, and `faults` of its checkpoint."""
    words = [sys.executable, "launchers/train.py", "--json", "--recipe", "demo_cpu", "--data", ROWS]
    for key, value in {**COMMON, **case.settings}.items():
        words += ["--set", f"{key}={json.dumps(value) if isinstance(value, bool) else value}"]
    begun = time.monotonic()
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True
    )
    found: dict[str, Any] = {
        "exit_code": done.returncode,
        "seconds": round(time.monotonic() - begun, 1),
    }
    if done.returncode != 0:
        return {**found, "faults": done.stderr.strip().splitlines()[-8:]}
    document = json.loads(done.stdout)
    log = TrainingLog(RunFolder(Path(document["run"])).training / "logging.jsonl")
    log.poll()
    checkpoint = Path(document["checkpoint"])
    return {**found, "losses": log.losses, "faults": missing_parts(checkpoint, resumable=True)}


@contextlib.contextmanager
def ray_cluster(env: Mapping[str, str]) -> Iterator[str]:
    """The address of a Ray cluster of this machine with two GPUs that it has not."""
    port = free_port()
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    words += ["--num-gpus", "2", "--num-cpus", "8", "--include-dashboard", "false"]
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "head.log"
        words += ["--port", str(port), "--temp-dir", place]
        with ProcessGroup(words, log=log, env=env, cwd=Path(place)) as head:
            deadline = time.monotonic() + 60
            while "Ray runtime started" not in log.read_text(encoding="utf-8", errors="replace"):
                if time.monotonic() > deadline or head.poll() is not None:
                    raise SystemExit(f"Ray did not start:\n{log.read_text(encoding='utf-8')}")
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"


def run_case(case: Case, env: Mapping[str, str]) -> dict[str, Any]:
    """`train`, with a cluster around it where the case is Ray's."""
    if case.needs != "ray":
        return train(case, env)
    # Ray 2.60 makes a token for its cluster by itself, and asks every process for it.
    env = {**env, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with ray_cluster(env) as address:
        settings = {**case.settings, "launch.ray.address": address}
        return train(case._replace(settings=settings), env)


def judged(name: str, results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A case's result with its greatest difference and whether that is within the tolerance."""
    case, result = CASES[name], results[name]
    ok = result["exit_code"] == 0 and not result["faults"] and len(result["losses"]) == STEPS
    if ok and case.compared_with:
        base = results.get(case.compared_with, {}).get("losses")
        if not base:
            return {**result, "ok": False, "faults": [f"{case.compared_with} was not run"]}
        pairs = zip(result["losses"], base, strict=True)
        result["greatest_difference"] = max(abs(one - other) for one, other in pairs)
        result |= {"compared_with": case.compared_with, "tolerance": case.tolerance}
        ok = result["greatest_difference"] <= case.tolerance
    return {**result, "ok": ok}


def packages(folder: Path | None) -> dict[str, str]:
    """Versions of what trained."""
    found = {name: version(name) for name in ("ms-swift", "torch", "transformers", "accelerate")}
    for name in ("deepspeed", "ray"):
        places = [*folder.glob(f"{name}-*.dist-info")] if folder else []
        if places:
            found[name] = places[0].name.removesuffix(".dist-info").partition("-")[2]
        else:
            with contextlib.suppress(ModuleNotFoundError):
                found[name] = version(name)
    return found


def main() -> int:
    """Run the cases and write the record; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--packages", type=Path, help="a folder with deepspeed and ray")
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    day = datetime.now(timezone.utc).date().isoformat()
    path = ROOT / "benchmarks" / "records" / f"engines-{day}.json"
    results: dict[str, dict[str, Any]] = (read_document(path) or {}).get("cases", {})
    folder = given.packages.resolve() if given.packages else None
    env = {"PYTHONPATH": str(folder)} if folder else {}
    for name in given.cases or CASES:
        results[name] = run_case(CASES[name], env)
        results[name] = judged(name, results)
        said = results[name].get("greatest_difference", "")
        print(f"{name:<9} {'ok' if results[name]['ok'] else 'FAILED':<7}", said, flush=True)
        for fault in results[name]["faults"]:
            print(f"          {fault}")
        document = {
            "benchmark": "engines",
            "date": day,
            "what": f"demo_cpu, {STEPS} steps of 10 rows by each engine; losses of each step",
            "command": "python -m benchmarks.engines.verify",
            "machine": {"cores": os.cpu_count(), "system": platform.system()},
            "versions": {"python": platform.python_version(), **packages(folder)},
            "cases": results,
        }
        write_json(path, document)
    return int(not all(results[name]["ok"] for name in given.cases or CASES))


if __name__ == "__main__":
    raise SystemExit(main())
