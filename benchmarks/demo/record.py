"""Keep what a finished demo run came to: seconds by stage, rows, exact answers, machine, versions.

python benchmarks/demo/record.py --run latest

Run it on the machine of the run, whose processor it names. The record is
benchmarks/records/demo-RECIPE-DATE.json.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palmswift.errors import PalmswiftError
from palmswift.eval.reports.report import JSON_NAME, EvaluationReport, read_report
from palmswift.files import write_json
from palmswift.launchers.run_folder import RunFolder, find_run

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the record; 2 when the run is not there or did not come to its end."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, help="`latest`, a name under runs/, or a folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "records")
    arguments = parser.parse_args(argv)
    try:
        run = find_run(arguments.run)
        report = read_report(run.evaluation / JSON_NAME)
    except PalmswiftError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    open_stages = [name for name, stage in run.state.stages.items() if stage.state != "done"]
    if open_stages or report.unanswered:
        sys.stderr.write(f"error: {run.path} is not finished: {', '.join(open_stages)}\n")
        return 2
    record = record_of(run, report)
    path = arguments.out / f"demo-{record['recipe']}-{record['date']}.json"
    write_json(path, record)
    print(path)
    return 0


def record_of(run: RunFolder, report: EvaluationReport) -> dict[str, Any]:
    """The record of a finished run."""
    state = run.state
    seconds = {name: stage.seconds or 0.0 for name, stage in state.stages.items()}
    training = run.facts("train")
    return {
        "benchmark": "demo",
        "date": state.created.partition("T")[0],
        "what": "the demo's stages: seconds of wall time, rows, and answers that are exactly right",
        "recipe": state.recipe,
        "command": _command(run),
        "machine": {
            "cpu": _processor(),
            "cores": state.hardware["cpus"],
            "memory_mib": state.hardware["memory_mib"],
            "gpus": state.hardware["gpus"],
        },
        "versions": {"palmswift": state.palmswift, **state.versions},
        "seconds": {**seconds, "all": round(sum(seconds.values()), 2)},
        "base_trained_in_this_run": any((run.path / "base").glob("*/run.json")),
        "rows": {key: run.facts("data")[key] for key in ("read", "rejected", "train", "val")},
        "training": {key: training[key] for key in ("steps", "first_loss", "last_loss")},
        "verdict": report.verdict,
        "answers": _answers(report),
    }


def _command(run: RunFolder) -> str:
    words = ["python3 quickstart.py demo"]
    if run.state.recipe != "demo_cpu":
        words.append(f"--recipe {run.state.recipe}")
    return " ".join([*words, *(f"--set {override}" for override in run.state.overrides)])


def _answers(report: EvaluationReport) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """Counts by tag, endpoint and measure: how many, of how many."""
    answers: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for summary in report.summaries:
        if summary.tag is None:
            continue
        counts = {
            name: {"count": measured.count, "of": measured.n}
            for name in ("exact_match", "pass_rate")
            if (measured := summary.metrics.get(name)) and measured.count is not None
        }
        answers.setdefault(summary.tag, {})[summary.endpoint] = counts
    return answers


def _processor() -> str | None:
    """The processor's name, None where the system has no /proc."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else None
    return found[1] if found else None


if __name__ == "__main__":
    raise SystemExit(main())
