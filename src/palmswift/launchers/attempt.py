"""One launch of ms-swift's training for a run: started, watched, and judged when it has ended."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from palmswift.launchers.disk_room import Room
from palmswift.launchers.engines.ranks import quote_rank_logs
from palmswift.launchers.gpu_release import computing_pids, wait_until_released
from palmswift.launchers.oom_kills import oom_kills
from palmswift.launchers.render import Rendered, direct_words
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.stopping import VARIABLE, Control, OrderlyEnd, Signals
from palmswift.launchers.verdict import Expected, Verdict, judge
from palmswift.launchers.watch import Watch, end_event
from palmswift.process import ProcessGroup, uninterrupted


def run_attempt(run: RunFolder, command: Rendered, log: Path) -> Verdict:
    """Run the command to its end, its output in `log`, and judge what it left in the run.

    `KeyboardInterrupt` when it was stopped before its end, with a checkpoint or at once. One that
    came to its end all the same is judged, and `run.stop_asked` says that no more is to follow.
    """
    log_start = log.stat().st_size if log.is_file() else 0
    killed_before = oom_kills()
    control = Control(run.path / ".control")
    room = Room(run.path)
    told = {VARIABLE: str(control.folder)}
    with (
        Signals().counted() as signals,  # first: one that comes while the rest begins counts too
        _cards_released(run),
        ProcessGroup(direct_words(command), log=log, env={**command.env, **told}) as child,
        Watch(run, log, command, pid=child.pid) as view,
    ):
        end = OrderlyEnd(control, signals)
        exit_code = None
        while exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = child.wait(0.5)
            child.keep_guarded()
            room.look()
            if exit_code is None and (said := end.heed()):
                view.note("stop", said)
            view.update()
        stopped = control.stopped
        if signals.came and stopped is not None:
            view.note("stop", f"stopped after step {stopped['step']}, which is saved")
    if signals.came:
        if stopped is not None or exit_code != 0:
            raise KeyboardInterrupt
        run.stop_asked = True
    if exit_code != 0:
        quote_rank_logs(run.logs, log)
    killed = oom_kills()
    verdict = judge(
        run.training,
        log,
        exit_code,
        _expected(run),
        log_start=log_start,
        oom_kills=None if killed is None or killed_before is None else killed - killed_before,
        disk_full=room.ran_out,
    )
    run.events.add(end_event(verdict, exit_code, view.seconds))
    return verdict


@contextlib.contextmanager
def _cards_released(run: RunFolder) -> Iterator[None]:
    """Leave the block when the memory on the cards is free again, however it ends."""
    if not run.recipe.needs_gpu:
        yield
        return
    others = computing_pids()
    try:
        yield
    finally:
        with uninterrupted():
            left = wait_until_released(others)
        if left:
            pids = ", ".join(map(str, sorted(left)))
            run.events.note("stop", f"the driver still holds memory of ended processes: {pids}")


def judge_finished(run: RunFolder, log: Path) -> Verdict:
    """Judge a training whose last checkpoint was saved at its last step: it has nothing to run."""
    end = log.stat().st_size if log.is_file() else 0
    return judge(run.training, log, 0, _expected(run), log_start=end)


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
