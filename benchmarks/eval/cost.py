"""What asking costs: processor time a request against bare aiohttp, start-up, memory; and others.

python -m benchmarks.eval.cost
python -m benchmarks.eval.cost --lm-eval /path/venv/bin/lm_eval --evalscope /path/venv/bin/evalscope

All ask the same server, which gives every request the same reply at once, in turn and with 32 in
flight; each in a process of its own, whose user and system time is what is compared. Ours is the
whole of `eval/batch.py`: reading the file, asking, journal, the finished file. Bare aiohttp posts
and reads bytes. lm-eval and EvalScope's `perf` are run where they are installed, in environments of
their own. The record is benchmarks/records/eval-cost-DATE.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.eval.record import ROOT, serving, write_record

CONCURRENCY = 32

_BARE = """
import asyncio, sys, time
import aiohttp
url, count, stream = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "stream"
body = (b'{"model":"fixed","messages":[{"role":"user","content":"hello"}],"stream":'
        + (b"true" if stream else b"false") + b"}")
async def main():
    numbers = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def worker():
            for _ in numbers:
                async with session.post(url + "/chat/completions", data=body,
                                        headers={"Content-Type": "application/json"}) as reply:
                    await reply.read()
        await asyncio.gather(*(worker() for _ in range(32)))
begin = time.perf_counter()
asyncio.run(main())
print(time.perf_counter() - begin)
"""


class Cost(NamedTuple):
    """A process that has ended."""

    cpu: float
    """User and system seconds of it and its children."""
    wall: float
    rss_mib: float
    """The largest resident memory of the process."""


def measured(words: Sequence[str], cwd: Path = ROOT, env: dict[str, str] | None = None) -> Cost:
    """What a command costs; its output is shown when it fails."""
    with tempfile.TemporaryFile() as log:
        begin = time.perf_counter()
        child = subprocess.Popen(
            words, stdout=log, stderr=log, cwd=cwd, env={**os.environ, **(env or {})}
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begin
        if child.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"{words}: {log.read()[-3000:].decode('utf-8', 'replace')}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def bare(url: str, count: int, how: str) -> Cost:
    """aiohttp alone."""
    return measured([sys.executable, "-c", _BARE, url, str(count), how])


def ours(url: str, count: int, folder: Path, *words: str) -> Cost:
    """`eval/batch.py` on so many questions."""
    source, out = folder / "q.txt", folder / "a.jsonl"
    source.write_text("".join(f"问题 {n}，几点开门？\n" for n in range(count)), encoding="utf-8")
    for old in folder.glob("a.jsonl*"):
        old.unlink()
    where = ["--input", str(source), "--endpoint", url, "--out", str(out)]
    command = [sys.executable, "eval/batch.py", *where, "--concurrency", str(CONCURRENCY)]
    return measured([*command, *words])


def lm_eval(program: str, url: str, count: int, folder: Path) -> Cost:
    """lm-eval's `local-chat-completions` on a task of its own."""
    task = folder / "task"
    task.mkdir(exist_ok=True)
    rows = "".join(json.dumps({"q": f"问题 {n}", "a": "x"}) + "\n" for n in range(count))
    (task / "rows.jsonl").write_text(rows, encoding="utf-8")
    (task / "fixed.yaml").write_text(
        f"task: fixed\ndataset_path: json\ndataset_kwargs: {{data_files: {task}/rows.jsonl}}\n"
        "test_split: train\noutput_type: generate_until\ndoc_to_text: '{{q}}'\n"
        "doc_to_target: '{{a}}'\ngeneration_kwargs: {until: ['</s>'], max_gen_toks: 64}\n"
        "metric_list: [{metric: exact_match}]\n",
        encoding="utf-8",
    )
    arguments = f"base_url={url}/chat/completions,model=fixed,num_concurrent={CONCURRENCY}"
    words = [program, "--model", "local-chat-completions", "--model_args", arguments]
    words += ["--tasks", "fixed", "--include_path", str(task), "--apply_chat_template"]
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "HF_DATASETS_OFFLINE": "1"}
    return measured(words, folder, env)


def evalscope(program: str, url: str, count: int, folder: Path) -> Cost:
    """EvalScope's load test; the loads are streamed."""
    source = folder / "lines.txt"
    source.write_text("".join(f"问题 {n}，几点开门？\n" for n in range(count)), encoding="utf-8")
    words = [program, "perf", "--url", f"{url}/chat/completions", "--model", "fixed"]
    words += ["--api", "openai", "--dataset", "line_by_line", "--dataset-path", str(source)]
    words += ["--number", str(count), "--parallel", str(CONCURRENCY), "--stream"]
    words += ["--max-tokens", "64", "--min-prompt-length", "1", "--no-test-connection"]
    words += ["--outputs-dir", str(folder / "evalscope")]
    return measured(words, folder, {"HF_HUB_OFFLINE": "1", "MODELSCOPE_OFFLINE": "1"})


def bench(url: str, count: int) -> Cost:
    """`eval/bench.py`, which streams as EvalScope's does."""
    words = [sys.executable, "eval/bench.py", "--endpoint", url, "--requests", str(count)]
    code = [*words, "--concurrency", str(CONCURRENCY), "--warmup", "0", "--max-tokens", "64"]
    # 4 says that the client was the bottleneck, which is what is wanted here.
    script = f"import subprocess, sys; sys.exit(subprocess.call({code!r}) not in (0, 4))"
    return measured([sys.executable, "-c", script])


def marginal(few: Cost, many: Cost, more: int) -> float:
    """Milliseconds of processor time for each further request."""
    return (many.cpu - few.cpu) / more * 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in interleaved rounds, print the ratios, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--lm-eval", metavar="PROGRAM")
    parser.add_argument("--evalscope", metavar="PROGRAM")
    arguments = parser.parse_args(argv)
    count, rounds = arguments.requests, []
    others: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving([sys.executable, str(ROOT / "benchmarks/eval/fixed_server.py")]) as url:
            for _ in range(arguments.rounds):
                rounds.append(_round(url, count, folder))
                print(json.dumps(rounds[-1]), flush=True)
            if arguments.lm_eval:
                sizes = (20, 20, 6020)
                runs = [lm_eval(arguments.lm_eval, url, n, folder) for n in sizes]
                others["lm_eval"] = _other(runs, 6000)
            if arguments.evalscope:
                sizes = (50, 50, 1050)
                runs = [evalscope(arguments.evalscope, url, n, folder) for n in sizes]
                others["evalscope_perf"] = _other(runs, 1000)
    summary = {key: round(statistics.median(r[key] for r in rounds), 3) for key in rounds[0]}
    for other in others.values():
        base = "stream_cpu_ms" if other is others.get("evalscope_perf") else "cpu_ms"
        if other["cpu_ms"] is not None:
            other["cpu_ms_times_ours"] = round(other["cpu_ms"] / summary[base], 1)
        other["start_cpu_times_ours"] = round(other["start_cpu_s"] / summary["start_cpu_s"], 1)
    measured_ = {"requests": count, "concurrency": CONCURRENCY, "median": summary, **others}
    print(json.dumps(measured_, indent=1))
    what = "processor time a request, requests a second, start-up and memory, on one fixed server"
    command = "python -m benchmarks.eval.cost --lm-eval PROGRAM --evalscope PROGRAM"
    packages = ("aiohttp", "msgspec", "pydantic")
    print(write_record("cost", what, command, packages, {**measured_, "rounds": rounds}))
    limits = summary["cpu_over_bare"] <= 3 and summary["start_cpu_s"] <= 1
    return 0 if limits else 1


def _round(url: str, count: int, folder: Path) -> dict[str, float]:
    """All of ours and the bare client once."""
    few = 100
    bare_few, bare_many = bare(url, few, "plain"), bare(url, few + count, "plain")
    our_few, our_many = ours(url, few, folder), ours(url, few + count, folder)
    stream_few, stream_many = bench(url, few), bench(url, few + count // 4)
    bare_stream_few = bare(url, few, "stream")
    bare_stream_many = bare(url, few + count // 4, "stream")
    first = ours(url, 1, folder, "--no-fingerprint")
    bare_ms, our_ms = marginal(bare_few, bare_many, count), marginal(our_few, our_many, count)
    stream_ms = marginal(stream_few, stream_many, count // 4)
    bare_stream_ms = marginal(bare_stream_few, bare_stream_many, count // 4)
    return {
        "bare_cpu_ms": round(bare_ms, 4),
        "cpu_ms": round(our_ms, 4),
        "cpu_over_bare": round(our_ms / bare_ms, 3),
        "requests_per_second": round(count / (our_many.wall - our_few.wall), 1),
        "bare_requests_per_second": round(count / (bare_many.wall - bare_few.wall), 1),
        "bare_stream_cpu_ms": round(bare_stream_ms, 4),
        "stream_cpu_ms": round(stream_ms, 4),
        "stream_cpu_over_bare": round(stream_ms / bare_stream_ms, 3),
        "start_cpu_s": round(first.cpu, 3),
        "start_wall_s": round(first.wall, 3),
        "rss_mib": round(our_many.rss_mib, 1),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _other(runs: Sequence[Cost], more: int) -> dict[str, Any]:
    """Another tool's costs, of two runs that hardly ask and one that asks so many more; what a
    request takes is told only where it stands out of what the start varies by."""
    few, again, many = runs
    start = min(few, again)
    noise = 3 * abs(few.cpu - again.cpu)
    resolved = many.cpu - start.cpu > noise
    return {
        "cpu_ms": round(marginal(start, many, more), 3) if resolved else None,
        "start_cpu_s": round(start.cpu, 2),
        "start_wall_s": round(start.wall, 2),
        "rss_mib": round(many.rss_mib, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
