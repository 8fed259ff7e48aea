"""One launch of ms-swift's training for a run: started, watched, and judged when it has ended."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from palmswift.launchers.oom_kills import oom_kills
from palmswift.launchers.render import Rendered
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.training_log import TrainingLog, TrainingView
from palmswift.launchers.verdict import Expected, Verdict, judge
from palmswift.process import ProcessGroup


def run_attempt(run: RunFolder, command: Rendered, log: Path) -> Verdict:
    """Run the command to its end, its output in `log`, and judge what it left in the run."""
    history = TrainingLog(run.training / "logging.jsonl")
    history.poll()
    log_start = log.stat().st_size if log.is_file() else 0
    killed_before = oom_kills()
    with (
        ProcessGroup(command.argv, log=log, env=command.env) as child,
        TrainingView(history) as view,
    ):
        exit_code = None
        while exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = child.wait(0.5)
            view.update()
    killed = oom_kills()
    return judge(
        run.training,
        log,
        exit_code,
        _expected(run),
        log_start=log_start,
        oom_kills=None if killed is None or killed_before is None else killed - killed_before,
    )


def _expected(run: RunFolder) -> Expected:
    swift = run.training_recipe.swift
    model = Path(str(run.facts("model").get("model", "")))
    return Expected(
        evaluation=(run.data / "val.jsonl").is_file() and swift.get("eval_strategy", "no") != "no",
        keep_best=swift.get("load_best_model_at_end") is True,
        task=run.recipe.task,
        resumable=swift.get("save_only_model") is not True,
        base=model if model.is_dir() else None,
    )
