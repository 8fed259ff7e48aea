"""Kills a test run at 200 random points and proves that what it leaves is enough to go on.

python -m benchmarks.eval.kills --trials 200

A run asks a server 60 questions with 4 in flight and is ended in one of five ways: by SIGKILL in
the middle of writing any byte of its journal, by SIGKILL at a random moment, by a disk that is full
at any byte, by Ctrl-C, and by Ctrl-C twice. Then the same command is run to its end. Of each trial
it is asked: does every answer that stood in the journal still stand there, has every question one
answer, were at most as many asked again as were in flight, and is the report, but for times, the
same byte for byte as that of a run that nobody disturbed? The record is
benchmarks/records/eval-kills-DATE.json.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

import requests

from benchmarks.eval.record import fake_server, write_record
from palmswift.eval.asking import journal
from palmswift.eval.asking.journal import read_journal
from palmswift.eval.run import main as evaluate

QUESTIONS = 60
CONCURRENCY = 4
WAYS = ("kill_at_byte", "kill_at_time", "disk_full", "interrupt", "interrupt_twice")
TIMES = frozenset(
    {"seconds", "created_at", "started_at", "first_at", "last_at", "timings", "base_urls"}
    | {"latency_mean", "latency_p50", "latency_p95"}
)
"""Keys of a report that hold times, or the port of the day."""


class Trial(NamedTuple):
    """One disturbed run."""

    way: str
    exit_code: int
    """Of the disturbed run; negative: the signal that ended it."""
    kept: int
    """Answers that stood in its journal."""
    asked_again: int
    """Requests beyond one for each question, over both runs."""
    problems: list[str]


class Bench:
    """A server with 60 questions, and the report of a run that nobody disturbed."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.suite = folder / "suite.yaml"
        self.suite.write_text(json.dumps({"name": "sums", "cases": cases()}), encoding="utf-8")
        assert self.fork(folder / "whole", lambda: None).wait() == 0
        self.journal_size = (folder / "whole" / "predictions.jsonl").stat().st_size
        begin = time.perf_counter()
        assert self.fork(folder / "timed", lambda: None).wait() == 0
        self.seconds = time.perf_counter() - begin
        self.report = report_of(folder / "whole")

    def asked(self) -> int:
        """How many questions have come to the server."""
        url = self.url.removesuffix("/v1")
        return len(requests.get(f"{url}/served", timeout=30).json())

    def fork(self, out: Path, prepare: Callable[[], None]) -> Child:
        """The command in a child that has all modules loaded; `prepare` is called in it."""
        pid = os.fork()
        if pid:
            return Child(pid)
        _be_the_command(self.words(out), prepare, out)

    def words(self, out: Path) -> list[str]:
        """The command's arguments."""
        where = ["--suite", str(self.suite), "--endpoint", self.url, "--out", str(out)]
        return [*where, "--concurrency", str(CONCURRENCY)]

    def trial(self, way: str, draw: random.Random, out: Path) -> Trial:
        """Disturb a run in one way, run it to its end, and look at what came of it."""
        before = self.asked()
        exit_code = self._disturbed(way, draw, out)
        path = out / "predictions.jsonl"
        finished = list(read_journal(path))
        problems = [] if path.exists() or not finished else ["the journal is gone"]
        last = self.fork(out, lambda: None).wait()
        after = self.asked()
        if last != 0:
            problems.append(f"the second run ended with {last}")
        rows = list(read_journal(path))
        if rows[: len(finished)] != finished:
            problems.append("an answer was lost or changed")
        if sorted(row.case for row in rows) != sorted(case["id"] for case in cases()):
            problems.append("a question was finished twice or not at all")
        again = after - before - QUESTIONS
        if not 0 <= again <= CONCURRENCY:
            problems.append(f"{again} questions were asked again")
        if report_of(out) != self.report:
            problems.append("the report differs from that of an undisturbed run")
        return Trial(way, exit_code, len(finished), again, problems)

    def _disturbed(self, way: str, draw: random.Random, out: Path) -> int:
        """The exit code of a run that is ended in one way."""
        byte = draw.randrange(self.journal_size)
        if way == "kill_at_byte":
            return self.fork(out, lambda: _fail_at(byte, lambda: os.kill(os.getpid(), 9))).wait()
        if way == "disk_full":
            return self.fork(out, lambda: _fail_at(byte, _no_space)).wait()
        child = self.fork(out, lambda: None)
        time.sleep(draw.uniform(0, self.seconds))
        if way == "kill_at_time":
            child.send(signal.SIGKILL)
        else:
            child.send(signal.SIGINT)
        if way == "interrupt_twice":
            time.sleep(draw.uniform(0, 0.02))
            child.send(signal.SIGINT)
        return child.wait()


class Child:
    """A forked child of ours."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal; it cannot meet another process, since nobody has waited for the child."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, or the negative number of the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _be_the_command(words: Sequence[str], prepare: Callable[[], None], out: Path) -> NoReturn:
    """Run `eval/run.py` in this process, with its streams in a file, and end the process."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        out.mkdir(parents=True, exist_ok=True)
        log = os.open(out / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = sys.stderr = open(log, "w", closefd=False)  # noqa: SIM115
        prepare()
        code = evaluate(list(words))
    except KeyboardInterrupt:
        code = 130  # while the command was starting
    finally:
        os._exit(code)


def _fail_at(byte: int, fail: Callable[[], None]) -> None:
    """Have the journal's writing fail when `byte` bytes have been written."""
    written = 0
    write = os.write

    class Failing:
        """The `os` of the journal's module, with a disk that fails."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, file: int, data: bytes) -> int:
            """Write what fits."""
            nonlocal written
            fits = data[: max(0, byte - written)]
            count = write(file, fits) if fits else 0
            written += count
            if len(fits) < len(data) and not (fits and count == 0):
                fail()
            return count

    patch.object(journal, "os", Failing()).start()


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def cases() -> list[dict[str, Any]]:
    """The suite's cases, of which the server knows the answers."""
    return [
        {
            "id": f"sum-{n}",
            "question": f"{n}+1?",
            "reference": str(n + 1),
            "tags": ["even" if n % 2 == 0 else "odd"],
            "assertions": [{"kind": "exact"}],
        }
        for n in range(QUESTIONS)
    ]


def script(delay: float) -> dict[str, Any]:
    """The server's answers."""
    return {
        "plans": {f"{n}+1?": [{"text": str(n + 1), "delay": delay}] for n in range(QUESTIONS)},
    }


def report_of(out: Path) -> str:
    """The report as text, without times."""
    path = out / "evaluation_report.json"
    if not path.is_file():
        return ""
    return json.dumps(without_times(json.loads(path.read_text(encoding="utf-8"))), indent=1)


def without_times(document: Any) -> Any:
    """The document without what differs from one run to the next by nature."""
    if isinstance(document, dict):
        return {key: without_times(value) for key, value in document.items() if key not in TIMES}
    if isinstance(document, list):
        return [without_times(value) for value in document]
    return document


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trials and write the record; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with fake_server(script(0.01), folder) as url:
            bench = Bench(folder, url)
            draw = random.Random(arguments.seed)
            for number in range(arguments.trials):
                way = draw.choices(WAYS, weights=(12, 4, 2, 1, 1))[0]
                out = folder / f"trial-{number}"
                trial = bench.trial(way, draw, out)
                trials.append(trial)
                for problem in trial.problems:
                    print(f"trial {number}, {trial}: {problem}", file=sys.stderr)
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(out)
    ways = collections.Counter(trial.way for trial in trials)
    broken = sum(bool(trial.problems) for trial in trials)
    measured = {
        "questions": QUESTIONS,
        "concurrency": CONCURRENCY,
        "seed": arguments.seed,
        "trials": len(trials),
        "ways": dict(sorted(ways.items())),
        "answers_kept": sum(trial.kept for trial in trials),
        "answers_lost": sum("lost" in text for trial in trials for text in trial.problems),
        "asked_again_most": max(trial.asked_again for trial in trials),
        "trials_with_a_broken_promise": broken,
    }
    what = "a test run ended at random points, then run again: answers lost, questions asked twice"
    command = f"python -m benchmarks.eval.kills --trials {arguments.trials}"
    print(json.dumps(measured, indent=1))
    print(write_record("kills", what, command, ("aiohttp", "pydantic"), measured))
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
