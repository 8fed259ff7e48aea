"""What watching a training costs: its time, its memory, and the time to the first step.

python -m benchmarks.supervision.bench --work runs/supervision

Each round trains the same rows once with launchers/train.py and once with the bare `swift sft` that
it starts, without palmswift's plugins, in turn, so that a busy moment falls on both. One more run
adds up the time inside the plugins' callbacks. The record is
benchmarks/records/supervision-DATE.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.frontend.bench import machine
from palmswift.launchers.arguments import TrainingPaths, child_environment, training_arguments
from palmswift.launchers.plugin_files import SUPERVISION, plugin_path
from palmswift.launchers.render import render_command
from palmswift.launchers.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
ACCOUNTING = Path(__file__).with_name("accounting.py")
COPIED = ("recipes", "data", "launchers", "eval", "pyproject.toml")
SETTINGS = (
    *("swift.max_steps={steps}", "swift.per_device_train_batch_size=4", "swift.logging_steps=1"),
    *("swift.save_strategy=steps", "swift.save_steps=100000", 'swift.eval_strategy="no"'),
    *("data.val=[]", "data.val_ratio=0"),
)

LOADED = """
import psutil, runpy, sys
from swift.pipelines import sft_main
from swift.trainers import Seq2SeqTrainer

before = psutil.Process().memory_info().rss
kept = [runpy.run_path(path) for path in sys.argv[1:]]
print((psutil.Process().memory_info().rss - before) / (1 << 20))
"""


class Taken(NamedTuple):
    """One training, in seconds and MiB."""

    train: float
    """The trainer's own train_runtime."""
    first_step: float
    """From the command to the first logged step, cleaning the rows left out."""
    child_mib: float
    """Most resident memory of the process that trains."""
    tree_mib: float
    """Most memory of all processes of the command while it trains (PSS: shared pages by share)."""
    ours_mib: float = 0.0
    """Most memory of the launcher and its guard while it trains (PSS)."""
    end_mib: float = 0.0
    """The same when the training has ended: the weights are looked at, the page is written."""
    ours_cpu: float = 0.0
    """Processor seconds of the launcher and its guard from the first step to the command's end: the
    verdict and the page, once a run, are most of it."""


class Watched:
    """Follows a command's processes from outside until it ends."""

    def __init__(self, words: list[str], work: Path, env: dict[str, str], log: Path) -> None:
        self._log = log.open("wb")
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            words, cwd=work, env={**os.environ, **env}, stdout=self._log, stderr=self._log
        )
        self.first_step: float | None = None
        self.child_mib = self.tree_mib = self.ours_mib = self.end_mib = 0.0
        self._cpu: list[float] = []

    def follow(self, logging: Path | None, runs: Path) -> None:
        """Look twice a second; `logging` is found in the newest run when it is None."""
        due = 0.0
        while self.process.poll() is None:
            if self.first_step is None:
                place = logging or _newest_logging(runs)
                if place is not None and place.is_file() and b'"loss"' in place.read_bytes():
                    self.first_step = time.perf_counter() - self.begun
            if time.perf_counter() >= due:
                due = time.perf_counter() + 0.5
                self._look()
            time.sleep(0.01)
        self._log.close()
        if self.process.returncode != 0:
            raise RuntimeError(f"a training failed: see {self._log.name}")

    @property
    def cpu(self) -> float:
        """Processor seconds of ours since the first step."""
        return self._cpu[-1] - self._cpu[0] if self._cpu else 0.0

    def _look(self) -> None:
        tree, ours, cpu, trains = 0.0, 0.0, 0.0, False
        with contextlib.suppress(psutil.Error):
            launcher = psutil.Process(self.process.pid)
            for process in [launcher, *launcher.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    words = " ".join(process.cmdline())
                    share = process.memory_full_info().pss / (1 << 20)
                    tree += share
                    if "swift/cli/" in words:
                        resident = process.memory_info().rss / (1 << 20)
                        self.child_mib = max(self.child_mib, resident)
                        trains = True
                    elif "launchers/train.py" in words or "palmswift.guard" in words:
                        ours += share
                        times = process.cpu_times()
                        cpu += times.user + times.system
        if self.first_step is not None:
            if trains:
                self.ours_mib = max(self.ours_mib, ours)
                self.tree_mib = max(self.tree_mib, tree)
            else:
                self.end_mib = max(self.end_mib, ours)
            self._cpu.append(cpu)


def _newest_logging(runs: Path) -> Path | None:
    found = sorted(runs.glob("*/train/logging.jsonl"))
    return found[-1] if found else None


def supervised(work: Path, steps: int, *more: str) -> tuple[Taken, RunFolder]:
    """Train as a user does."""
    settings = [word.format(steps=steps) for word in SETTINGS]
    words = [sys.executable, "launchers/train.py", "--recipe", "demo_cpu"]
    words += [word for setting in [*settings, *more] for word in ("--set", setting)]
    # A run's folder is known by its name once it is there.
    runs = work / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    watched = Watched(words, work, {}, work / "supervised.log")
    watched.follow(None, runs)
    [run] = [RunFolder(file.parent) for file in runs.glob("*/run.json")]
    cleaning = run.state.stages["data"].seconds or 0.0
    taken = Taken(
        train=_train_runtime(run.training),
        first_step=(watched.first_step or 0.0) - cleaning,
        child_mib=watched.child_mib,
        tree_mib=watched.tree_mib,
        ours_mib=watched.ours_mib,
        end_mib=watched.end_mib,
        ours_cpu=watched.cpu,
    )
    return taken, run


def bare(work: Path, run: RunFolder) -> Taken:
    """Train the run's rows with `swift sft` alone."""
    output = work / "bare"
    shutil.rmtree(output, ignore_errors=True)
    model = str(run.facts("model")["model"])
    paths = TrainingPaths(model, run.data / "train.jsonl", None, output)
    arguments = training_arguments(run.recipe, paths)
    del arguments["external_plugins"]
    environment = child_environment(run.recipe, model)
    command = render_command(run.recipe.swift_command, arguments, env=environment)
    watched = Watched(command.argv, work, environment, work / "bare.log")
    watched.follow(output / "logging.jsonl", work)
    return Taken(
        _train_runtime(output), watched.first_step or 0.0, watched.child_mib, watched.tree_mib
    )


def _train_runtime(output: Path) -> float:
    lines = (output / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return float(next(row["train_runtime"] for row in rows if "train_runtime" in row))


def accounted(work: Path, steps: int) -> dict[str, float]:
    """The share of a training's time that passes inside the plugins' callbacks."""
    taken, run = supervised(work, steps, f"plugins=[{ACCOUNTING}]")
    document = json.loads((run.training / "accounting.json").read_text(encoding="utf-8"))
    return {
        "seconds": round(document["seconds"], 4),
        "calls": document["calls"],
        "train_seconds": taken.train,
        "share": round(document["seconds"] / taken.train, 6),
        "microseconds_a_step": round(1e6 * document["seconds"] / steps, 1),
    }


def plugins_mib() -> float:
    """Resident memory that the plugins add to a process that has ms-swift's trainers."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *map(str, map(plugin_path, SUPERVISION))],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return round(float(done.stdout.split()[-1]), 2)


def imports(statement: str) -> dict[str, Any]:
    """Seconds of an import in a new Python, by package: each module's own time, added up."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        capture_output=True,
        text=True,
        check=True,
    )
    spent: dict[str, float] = {}
    for own, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", done.stderr, re.M):
        package = module.partition(".")[0]
        spent[package] = spent.get(package, 0.0) + int(own) / 1e6
    largest = sorted(spent.items(), key=lambda pair: -pair[1])[:8]
    return {
        "statement": statement,
        "seconds": round(sum(spent.values()), 2),
        "largest": {package: round(seconds, 2) for package, seconds in largest},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, required=True, help="a folder for copies and runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    arguments = parser.parse_args(argv)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, work / name, dirs_exist_ok=True)
        else:
            shutil.copy2(source, work / name)
    if not (work / "models").is_dir():
        supervised(work, 2)  # makes the model
    pairs = []
    for _ in range(arguments.rounds):
        with_us, run = supervised(work, arguments.steps)
        pairs.append((with_us, bare(work, run)))
    record = _record(arguments.rounds, arguments.steps, pairs, accounted(work, arguments.steps))
    path = arguments.out / f"supervision-{record['date']}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({name: record[name] for name in ("training", "memory_mib", "first_step")}))
    print(path)
    return 0


def _record(
    rounds: int, steps: int, pairs: list[tuple[Taken, Taken]], share: dict[str, float]
) -> dict[str, Any]:
    def median(values: list[float]) -> float:
        return round(statistics.median(values), 4)

    return {
        "benchmark": "supervision",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "what": "launchers/train.py against the bare swift sft that it starts, in turn",
        "command": f"python -m benchmarks.supervision.bench --work DIR --rounds {rounds} "
        f"--steps {steps}",
        "machine": machine(),
        "versions": {name: version(name) for name in ("ms-swift", "torch", "transformers")},
        "plugins": [plugin_path(name).stem for name in SUPERVISION],
        "rounds": [{"supervised": one._asdict(), "bare": two._asdict()} for one, two in pairs],
        "training": {
            "ratio_of_medians": round(
                median([one.train for one, _ in pairs]) / median([two.train for _, two in pairs]), 4
            ),
            "ratios": [round(one.train / two.train, 4) for one, two in pairs],
            "inside_callbacks": share,
            "launcher_cpu_share": median([one.ours_cpu / one.train for one, _ in pairs]),
        },
        "memory_mib": {
            "all_processes": median([one.tree_mib for one, _ in pairs]),
            "all_processes_bare": median([two.tree_mib for _, two in pairs]),
            "launcher_and_guard": median([one.ours_mib for one, _ in pairs]),
            # The end may pass between two looks: the most that any round saw.
            "launcher_at_the_end": max(one.end_mib for one, _ in pairs),
            "plugins_in_the_child": plugins_mib(),
            "peak_of_child_over_bare": [
                round(one.child_mib - two.child_mib, 1) for one, two in pairs
            ],
        },
        "first_step": {
            "supervised_s": median([one.first_step for one, _ in pairs]),
            "bare_s": median([two.first_step for _, two in pairs]),
            "differences_s": [round(one.first_step - two.first_step, 2) for one, two in pairs],
            "wrapper": imports("import swift.cli.main"),
            "training": imports("from swift.pipelines import sft_main"),
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
