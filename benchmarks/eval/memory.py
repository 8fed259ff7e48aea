"""The memory and time of a batch of a million rows, of which nearly all have been answered before.

python -m benchmarks.eval.memory --rows 1000000 --ask 20000

A journal of finished answers is written for all rows but the last `--ask`, as a run that was killed
leaves it; then `eval/batch.py` goes on from there: it surveys the input, finds what is answered,
asks the rest of a server with a fixed reply, and writes the finished file in input order. To show
that memory does not grow with what is asked either, two batches of other sizes are asked whole. The
record is benchmarks/records/eval-memory-DATE.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.eval.cost import CONCURRENCY, Cost, measured
from benchmarks.eval.fixed_server import TEXT
from benchmarks.eval.record import ROOT, serving, write_record
from palmswift.eval.asking.batch_input import InputFile
from palmswift.eval.asking.conversation import content_id
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.engine import Question, Sampling, Target
from palmswift.eval.asking.journal import Prediction, line_of

LIMIT_MIB = 200


def batch(url: str, source: Path, out: Path) -> Cost:
    """`eval/batch.py` to its end."""
    words = ["--input", str(source), "--endpoint", url, "--out", str(out), "--no-fingerprint"]
    program = [sys.executable, str(ROOT / "eval" / "batch.py")]
    return measured([*program, *words, "--concurrency", str(CONCURRENCY)])


def write_questions(path: Path, rows: int) -> None:
    """A question a line, each its own."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            stream.write(f"第 {number} 位患者问：周末几点开门，需要提前多久预约？\n")


def write_journal(path: Path, source: Path, url: str, rows: int) -> None:
    """Answers to the first rows, as `eval/batch.py` keeps them."""
    target = Target(Endpoint(label="batch", base_url=url), "fixed")
    sampling = Sampling()
    with path.open("wb") as stream:
        for number, item in enumerate(InputFile(source).inputs("rows")):
            if number == rows:
                return
            question = Question(content_id(item.content), 0, item.messages)
            sent = target.body(question, sampling)
            row = Prediction(
                endpoint="batch",
                base_url=url,
                case=question.case,
                repeat=0,
                request=sent,
                request_hash=target.key(question, sent).request_hash,
                content=TEXT,
                finish_reason="stop",
                reply={"choices": [{"message": {"role": "assistant", "content": TEXT}}]},
                seconds=0.5,
                attempts=1,
                started_at="2026-01-01T00:00:00.000+00:00",
            )
            stream.write(line_of(row))


def whole_and_in_order(out: Path, rows: int) -> bool:
    """Whether the finished file has every input once, in order, answered."""
    with out.open("rb") as stream:
        numbers = 0
        for number, line in enumerate(stream, start=1):
            row = json.loads(line)
            if row["id"] != str(number) or row["answer"] != TEXT:
                return False
            numbers = number
    return numbers == rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the record; 1 when it took more memory than promised."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ask", type=int, default=20_000)
    parser.add_argument("--work", type=Path, help="where the files are made (2 GB a million rows)")
    arguments = parser.parse_args(argv)
    runs: list[dict[str, Any]] = []
    server = [sys.executable, str(ROOT / "benchmarks/eval/fixed_server.py")]
    with tempfile.TemporaryDirectory(dir=arguments.work) as name, serving(server) as url:
        folder = Path(name)
        plans = [(10_000, 10_000), (40_000, 40_000), (arguments.rows, arguments.ask)]
        for rows, ask in plans:
            source, out = folder / f"{rows}.txt", folder / f"{rows}.jsonl"
            write_questions(source, rows)
            if ask < rows:
                write_journal(Path(f"{out}.journal.jsonl"), source, url, rows - ask)
            cost = batch(url, source, out)
            run = {
                "rows": rows,
                "asked": ask,
                "rss_mib": round(cost.rss_mib, 1),
                "cpu_s": round(cost.cpu, 1),
                "wall_s": round(cost.wall, 1),
                "whole_and_in_order": whole_and_in_order(out, rows),
            }
            runs.append(run)
            print(json.dumps(run), flush=True)
    good = all(run["rss_mib"] < LIMIT_MIB and run["whole_and_in_order"] for run in runs)
    what = "peak resident memory and time of eval/batch.py, resumed with nearly all rows answered"
    command = f"python -m benchmarks.eval.memory --rows {arguments.rows} --ask {arguments.ask}"
    packages = ("aiohttp", "msgspec", "numpy", "pydantic")
    measured_ = {"limit_mib": LIMIT_MIB, "within_limit": good, "runs": runs}
    print(write_record("memory", what, command, packages, measured_))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
