"""One launch of ms-swift's training for a run: started, watched, and judged when it has ended."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from palmswift.launchers.render import Rendered, direct_words
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.verdict import Verdict, judge
from palmswift.launchers.watch import Watch, end_event
from palmswift.process import ProcessGroup
from palmswift.recipes.recipe import Recipe


def run_attempt(run: RunFolder, command: Rendered, log: Path) -> Verdict:
    """Run the command to its end, its output in `log`, and judge what it left in the run."""
    log_start = log.stat().st_size if log.is_file() else 0
    with (
        ProcessGroup(direct_words(command), log=log, env=command.env) as child,
        Watch(run, log, command, pid=child.pid) as view,
    ):
        exit_code = None
        while exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = child.wait(0.5)
            view.update()
    verdict = judge(
        run.training,
        log,
        exit_code,
        expects_eval=(run.data / "val.jsonl").is_file() and _evaluates(run.recipe),
        keep_best=run.recipe.swift.get("load_best_model_at_end") is True,
        log_start=log_start,
    )
    run.events.add(end_event(verdict, exit_code, view.seconds))
    return verdict


def _evaluates(recipe: Recipe) -> bool:
    return recipe.swift.get("eval_strategy", "no") != "no"
