"""Whether a training run succeeded: by what it left behind, whatever its exit code says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from palmswift.launchers.checkpoint_files import missing_parts, read_document
from palmswift.launchers.diagnosis import Diagnosis, diagnose, full_disk
from palmswift.launchers.loss_history import faults, remarks
from palmswift.launchers.run_folder import checkpoints, trainer_state
from palmswift.launchers.tensor_file import TornFile
from palmswift.launchers.trained_weights import check_weights
from palmswift.launchers.training_log import LogRecord, TrainingLog

_MAY_BE_A_FULL_DISK = ("unknown", "shared_memory", "no_checkpoint", "checkpoint_broken")
"""Failures that a full disk explains when its own message did not fit into the log any more."""


@dataclass(frozen=True)
class Expected:
    """What a run is to leave behind."""

    evaluation: bool
    """Validation rows were given, and an evaluation is asked for."""
    keep_best: bool = False
    """The best checkpoint by evaluation is wanted instead of the last."""
    task: str = "sft"
    resumable: bool = True
    """Checkpoints hold the optimizer's state too (not with save_only_model)."""
    base: Path | None = None
    """The folder of the model that is trained; None for one of a hub."""


@dataclass(frozen=True)
class Verdict:
    """How a training run ended; `failure` is None when it succeeded."""

    failure: Diagnosis | None
    steps: int
    losses: list[float]
    eval_losses: list[float]
    checkpoint: Path | None
    """The one to use."""
    remarks: list[str] = field(default_factory=list)
    """What is worth telling of a run that succeeded."""


def judge(
    output: Path,
    log: Path,
    exit_code: int,
    expected: Expected,
    *,
    log_start: int = 0,
    oom_kills: int | None = None,
    disk_full: bool = False,
) -> Verdict:
    """Read what ms-swift left in `output` and say whether a model was trained.

    `log` is the child's output from byte `log_start` on; `oom_kills` how many processes the system
    killed for want of memory meanwhile; `disk_full`: no room was seen left. A run has failed when
    its exit code is not 0; no step was taken; its losses or gradients are not finite, all 0, stuck
    or exploded; an evaluation is missing or not finite; or the checkpoint to use is missing, not
    whole, has numbers that are not finite, or the numbers that it began with.
    """
    history = TrainingLog(output / "logging.jsonl")
    history.poll()
    steps = max((record.step for record in history.records), default=0)
    kept = checkpoints(output)
    wanted, told = _wanted(kept, history.records, expected)
    failure: Diagnosis | None = None
    if exit_code != 0:
        failure = diagnose(log, exit_code, start=log_start, oom_kills=oom_kills)
    elif fault := faults(history.records, expected.task):
        failure = Diagnosis(*fault)
    else:
        failure = _evaluation_fault(history, expected) or _checkpoint_fault(
            wanted, output, expected
        )
    if disk_full and failure is not None and failure.kind in _MAY_BE_A_FULL_DISK:
        failure = full_disk()
    if failure is None:
        told = [*told, *remarks(history.records, expected.task)]
    return Verdict(failure, steps, history.losses, history.eval_losses, wanted, told)


def _evaluation_fault(history: TrainingLog, expected: Expected) -> Diagnosis | None:
    evals = history.eval_losses
    if expected.evaluation and not evals:
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


def _checkpoint_fault(wanted: Path | None, output: Path, expected: Expected) -> Diagnosis | None:
    if wanted is None:
        return Diagnosis(
            "no_checkpoint",
            f"ms-swift ended well but left no whole checkpoint in {output}",
            "save_strategy must not be `no`; look whether the disk is full",
        )
    if missing := missing_parts(wanted, resumable=expected.resumable):
        return Diagnosis(
            "checkpoint_broken",
            f"{wanted.name} cannot be loaded: {'; '.join(missing[:3])}",
            "delete it and resume: the training goes on from the one before",
        )
    try:
        weights = check_weights(wanted, expected.base or _recorded_base(wanted))
    except (TornFile, OSError) as error:
        return Diagnosis(
            "checkpoint_broken",
            f"{wanted.name} cannot be read: {error}",
            "look at the disk, then resume: the training goes on from the one before",
        )
    if weights.not_finite:
        return Diagnosis(
            "weights_not_finite",
            f"{len(weights.not_finite)} of {weights.tensors} tensors of {wanted.name} hold NaN or "
            f"infinite numbers, {weights.not_finite[0]} among them",
            "a lower swift.learning_rate; bfloat16 or float32 instead of float16",
        )
    if weights.changed is False:
        return Diagnosis(
            "weights_unchanged",
            f"the weights in {wanted.name} are those that the training began with",
            "a higher swift.learning_rate, more steps, and something that is trained "
            "(swift.target_modules, swift.freeze_parameters)",
        )
    return None


def _recorded_base(checkpoint: Path) -> Path | None:
    """The folder that ms-swift loaded the model from, a hub's cache mostly, by its own account."""
    recorded = (read_document(checkpoint / "args.json") or {}).get("model_dir")
    return Path(recorded) if isinstance(recorded, str) and recorded else None


def _wanted(
    kept: Sequence[Path], records: Sequence[LogRecord], expected: Expected
) -> tuple[Path | None, list[str]]:
    """The checkpoint to use, and what is to be told when it is another than was wanted."""
    if not kept:
        return None, []
    if not expected.keep_best or not any(record.is_evaluation for record in records):
        return kept[-1], []
    step = (trainer_state(kept[-1]) or {}).get("best_global_step")
    best = kept[-1].with_name(f"checkpoint-{step}")
    if best in kept:
        return best, []
    if step is None:
        return kept[-1], ["which checkpoint is best is not known: the last one is taken"]
    return kept[-1], [
        f"the best checkpoint, {best.name}, is no longer there: the last one is taken"
    ]
