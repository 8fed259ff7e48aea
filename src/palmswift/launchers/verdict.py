"""Whether a training run succeeded: by what it left behind, whatever its exit code says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from palmswift.launchers.diagnosis import Diagnosis, diagnose
from palmswift.launchers.run_folder import checkpoints, trainer_state
from palmswift.launchers.training_log import TrainingLog


class Verdict(NamedTuple):
    """How a training run ended; `failure` is None when it succeeded."""

    failure: Diagnosis | None
    steps: int
    losses: list[float]
    eval_losses: list[float]
    checkpoint: Path | None


def judge(
    output: Path,
    log: Path,
    exit_code: int,
    *,
    expects_eval: bool,
    keep_best: bool,
    log_start: int = 0,
) -> Verdict:
    """Read what ms-swift left in `output` and say whether a model was trained.

    `log` is the child's output from byte `log_start` on, `expects_eval` whether validation rows
    were given, `keep_best` whether the best checkpoint by evaluation is wanted instead of the last.
    A run has failed when its exit code is not 0, no step was taken, a loss is not finite, every
    loss is 0, an evaluation is missing or not finite, or there is no checkpoint with weights.
    """
    history = TrainingLog(output / "logging.jsonl")
    history.poll()
    steps = max((record.step for record in history.records), default=0)
    kept = checkpoints(output)
    if exit_code != 0:
        failure: Diagnosis | None = diagnose(log, exit_code, start=log_start)
    else:
        failure = _silent_failure(history, expects_eval)
    if failure is None and not kept:
        failure = Diagnosis(
            "no_checkpoint",
            f"ms-swift ended well but left no checkpoint in {output}",
            "save_strategy must not be `no`",
        )
    return Verdict(failure, steps, history.losses, history.eval_losses, _wanted(kept, keep_best))


def _silent_failure(history: TrainingLog, expects_eval: bool) -> Diagnosis | None:
    losses, evals = history.losses, history.eval_losses
    if not losses:
        return Diagnosis(
            "no_steps",
            "ms-swift ended well but took no logged step",
            "more rows, more epochs, or a smaller swift.logging_steps",
        )
    if not all(math.isfinite(loss) for loss in losses):
        return Diagnosis(
            "loss_not_finite",
            "the training loss became NaN or infinite",
            "a lower swift.learning_rate; bfloat16 or float32 instead of float16",
        )
    if not any(losses):
        return Diagnosis(
            "loss_zero",
            "the training loss is 0 throughout: nothing was learnt from",
            "look at the rows' trained tokens in data/report.html",
        )
    if expects_eval and not evals:
        return Diagnosis(
            "no_eval",
            "there are validation rows, and no evaluation ran",
            "swift.eval_strategy: steps, and eval_steps below the number of steps",
        )
    if not all(math.isfinite(loss) for loss in evals):
        return Diagnosis(
            "eval_not_finite",
            "the evaluation loss is NaN or infinite",
            "a validation row has nothing to learn from: look at data/report.html",
        )
    return None


def _wanted(kept: list[Path], keep_best: bool) -> Path | None:
    if not kept:
        return None
    if keep_best:
        state = trainer_state(kept[-1]) or {}
        best = kept[-1].with_name(f"checkpoint-{state.get('best_global_step')}")
        if best in kept:
            return best
    return kept[-1]
