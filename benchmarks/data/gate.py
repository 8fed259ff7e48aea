"""Time, memory and I/O of the data gate, from ten thousand rows of 2 kB to a million.

python benchmarks/data/gate.py --rows 10000 100000 1000000
python benchmarks/data/gate.py --rows 10000 --model FOLDER      # ms-swift's own template as well

The rows are made from a seed, half of them Chinese, one in a hundred wrong in some way. Each size
runs in a process of its own, so that its peak memory is its own. Without --model a stand-in takes
the rows and answers at once: what is measured is the gate's own process. The record is
benchmarks/records/data-gate-DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]

_ONE_IN = 100
"""One row in so many is wrong, in turn: no answer, a copy, nearly a copy, too long, no JSON."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each size and write the record; 1 when a run fails."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--clean", action="store_true", help="rows of which none is wrong")
    parser.add_argument("--model", type=Path, help="a Qwen3's config and tokenizer")
    parser.add_argument("--work", type=Path, help="where the rows are made, and taken away again")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        print(json.dumps(_measure(arguments.one, arguments.model)))
        return 0
    runs = []
    for rows in arguments.rows:
        run = _run(rows, arguments)
        if run is None:
            return 1
        runs.append(run)
        print(json.dumps(run), flush=True)
    path = _write_record(runs, arguments)
    print(path)
    return 0


def _run(rows: int, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """One size in a process of its own; None when it failed."""
    with tempfile.TemporaryDirectory(prefix="gate-benchmark-", dir=arguments.work) as name:
        data = Path(name) / "rows.jsonl"
        _write_rows(data, rows, clean=arguments.clean)
        words = [sys.executable, str(Path(__file__)), "--one", str(data)]
        words += ["--model", str(arguments.model)] if arguments.model else []
        finished = subprocess.run(words, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        sys.stderr.write(finished.stderr)
        return None
    measured: dict[str, Any] = json.loads(finished.stdout)
    return {"rows": rows, **measured}


def _write_rows(path: Path, count: int, *, clean: bool) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for line in _lines(count, clean=clean):
            stream.write(line + "\n")


def _lines(count: int, *, clean: bool) -> Iterator[str]:
    """JSON rows of about 2 kB that are no near duplicates of each other; the same at every run."""
    choose = random.Random(7)
    han = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    words = [
        "".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=k % 9 + 2)) for k in range(6000)
    ]
    before = ""
    for number in range(count):
        if number % 2:
            question = "".join(choose.choices(han, k=60)) + "？"
            answer = "".join(choose.choices(han, k=560)) + "。"
        else:
            question = " ".join(choose.choices(words, k=30)) + "?"
            answer = " ".join(choose.choices(words, k=250)) + "."
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        line = json.dumps({"messages": turns}, ensure_ascii=False)
        fault = number // _ONE_IN % 5 if number % _ONE_IN == _ONE_IN - 1 and not clean else None
        if fault == 0:
            line = json.dumps({"query": question, "response": ""}, ensure_ascii=False)
        elif fault == 1:
            line = before
        elif fault == 2:
            line = before.replace('"}]}', ' 完"}]}')
        elif fault == 3:
            line = json.dumps({"query": question, "response": answer * 40}, ensure_ascii=False)
        elif fault == 4:
            line = line[:-9]
        yield line
        before = line


def _measure(data: Path, model: Path | None) -> dict[str, Any]:
    """Clean the file; seconds, peak memory of this process, and bytes read and written by it."""
    from palmswift.data.sanitize import sanitize
    from palmswift.data.template import TemplateSpec
    from palmswift.recipes.recipe import DataSettings

    template = TemplateSpec(
        arguments={
            "model": str(model),
            "model_type": "qwen3",
            "template": "qwen3",
            "max_length": 4096,
        }
    )
    judge = nullcontext() if model else patch("palmswift.data.gate.TemplateJudge", _StandIn)
    before, begin, begin_cpu = _io(), time.perf_counter(), time.process_time()
    with judge:
        report = sanitize(
            [data],
            [],
            data.parent / "out",
            settings=DataSettings(),
            template=template,
            log=data.parent / "log",
        )
    seconds, cpu, after = time.perf_counter() - begin, time.process_time() - begin_cpu, _io()
    size = data.stat().st_size
    measured: dict[str, Any] = {
        "bytes": size,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "rows_per_second": round(report.read / seconds),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "kept": report.kept,
        "rejected": {reason.code: reason.count for reason in report.reasons},
        "near_duplicates": report.near_duplicates.rows if report.near_duplicates else 0,
    }
    if model is None:  # the system counts what a child has read (ms-swift itself) as ours
        measured["read_passes"] = round((after[0] - before[0]) / size, 2)
        measured["write_passes"] = round((after[1] - before[1]) / size, 2)
    return measured


def _io() -> tuple[int, int]:
    """Bytes that this process has asked the system to read and to write, from disk or cache."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    counts = dict(line.split(": ") for line in text.splitlines())
    return int(counts["rchar"]), int(counts["wchar"])


class _StandIn:
    """In place of TemplateJudge: a row is as many tokens as characters, 12,000 are too many."""

    def __init__(self, *_: Any, **__: Any) -> None:
        from palmswift.data.verdict import Verdicts

        self._verdicts = Verdicts()

    def __enter__(self) -> _StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, rows: Sequence[dict[str, Any]]) -> None:
        from palmswift.data.verdict import Verdict

        lengths = [[len(message["content"]) for message in row["messages"]] for row in rows]
        self._verdicts.extend(
            Verdict(sum(of), of[-1], *(("over_length", "long") if sum(of) > 12_000 else ("", "")))
            for of in lengths
        )

    def finish(self, progress: object = None) -> Any:
        from palmswift.data.template import Judgement, TemplateFacts

        facts = TemplateFacts(
            template="stand-in",
            max_length=12_000,
            truncation_strategy="delete",
            loss_scale="default",
            swift_version="none",
        )
        return Judgement(facts, self._verdicts, [])


def _write_record(runs: list[dict[str, Any]], arguments: argparse.Namespace) -> Path:
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    record = {
        "benchmark": "data-gate",
        "date": date,
        "what": "one run a size; peak memory and I/O of the gate's own process",
        "template": "ms-swift's own, in its child process" if arguments.model else "a stand-in",
        "rows_wrong": "none" if arguments.clean else f"one in {_ONE_IN}",
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2),
            "system": platform.system(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "msgspec")},
        },
        "runs": runs,
    }
    name = "data-gate-template" if arguments.model else "data-gate"
    path: Path = arguments.out / f"{name}-{date}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
