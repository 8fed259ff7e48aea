"""What a training's logged numbers say: that it learnt, or in which way it went wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from palmswift.launchers.training_log import LogRecord

_FEWEST = 5
"""Logged steps from which on a trend can be told."""

_EXPLODED = 1.5
"""The end is that many times the beginning..."""
_ABOVE_LOWEST = 3.0
"""... and that many times the lowest that the run had reached."""

_JUMPED = 10.0
"""A single loss that many times the beginning's is told, even where it came back."""

_NO_PROGRESS = 0.995


class Finding(NamedTuple):
    """What is wrong with a run's numbers: a class of failure, its cause and remedy."""

    kind: str
    cause: str
    remedy: str


_LOWER_RATE = (
    "a lower swift.learning_rate (a third), more swift.warmup_ratio, swift.max_grad_norm: 1.0"
)


def faults(records: Sequence[LogRecord], task: str) -> Finding | None:
    """The first thing that makes a finished training a failed one; None when there is nothing."""
    trained = [record for record in records if record.loss is not None]
    losses = [record.loss for record in trained if record.loss is not None]
    if not losses:
        return Finding(
            "no_steps",
            "ms-swift ended well but took no logged step",
            "more rows, more epochs, or a smaller swift.logging_steps",
        )
    if task != "grpo" and _nothing_is_trained_on(trained):
        return Finding(
            "no_trained_tokens",
            "no token of any row is trained on: every loss is NaN or 0, and every gradient is 0",
            "answers that are cut off by swift.max_length, or masked by swift.loss_scale: "
            "python data/preview.py FILE --recipe NAME shows the trained tokens in colour",
        )
    if bad := [record.step for record in trained if not math.isfinite(record.loss or 0.0)]:
        return Finding(
            "loss_not_finite",
            f"the training loss became NaN or infinite at step {bad[0]}",
            _LOWER_RATE + "; bfloat16 or float32 instead of float16",
        )
    if task != "grpo" and exploded(losses):
        return _explosion(trained, losses)
    if (lost := _lost_gradient(trained)) is not None:
        return Finding(
            "grad_not_finite",
            f"the gradients became NaN or infinite at step {lost} and stayed so",
            _LOWER_RATE + "; bfloat16 or float32 instead of float16",
        )
    return _reward_fault(trained) if task == "grpo" else _loss_fault(trained, losses)


def _nothing_is_trained_on(trained: Sequence[LogRecord]) -> bool:
    """The mean over no tokens is NaN (0 / 0), or 0, and has no gradient."""
    losses = [record.loss for record in trained if record.loss is not None]
    norms = [record.numbers.get("grad_norm") for record in trained]
    return all(not math.isfinite(loss) or loss == 0 for loss in losses) and all(
        norm == 0 for norm in norms
    )


def _lost_gradient(trained: Sequence[LogRecord]) -> int | None:
    """The step from which on no gradient was finite; None when the last one is (a single infinite
    one is a step that float16 scaling skips)."""
    first = None
    for record in reversed(trained):
        norm = record.numbers.get("grad_norm")
        if norm is None or math.isfinite(norm):
            return first
        first = record.step
    return first


def _loss_fault(trained: Sequence[LogRecord], losses: Sequence[float]) -> Finding | None:
    if not any(losses):
        return Finding(
            "loss_zero",
            "the training loss is 0 throughout: nothing was learnt from",
            "look at the rows' trained tokens in data/report.html",
        )
    if len(losses) >= _FEWEST and len(set(losses)) == 1:
        return Finding(
            "loss_stuck",
            f"the training loss is {losses[0]:.4g} at every step: nothing was learnt",
            "swift.learning_rate above 0, and something that is trained",
        )
    return None


def _explosion(trained: Sequence[LogRecord], losses: Sequence[float]) -> Finding:
    start, end = _ends(losses)
    worst = max(range(len(losses)), key=losses.__getitem__)
    return Finding(
        "loss_exploded",
        f"the training loss exploded: from {start:.3g}, as low as {min(losses):.3g}, to {end:.3g} "
        f"(highest at step {trained[worst].step})",
        _LOWER_RATE + "; checkpoints from before are kept in the run's train/ folder",
    )


def exploded(losses: Sequence[float]) -> bool:
    """Whether the end of a run lies far above its beginning and above its lowest.

    Beginning and end are medians of a tenth of the run, so that one bad batch is none.
    """
    if len(losses) < _FEWEST:
        return losses[-1] > _JUMPED * max(losses[0], 1e-3)
    start, end = _ends(losses)
    lowest = min(_smoothed(losses))
    return end > _EXPLODED * start and end > _ABOVE_LOWEST * lowest


def _ends(losses: Sequence[float]) -> tuple[float, float]:
    part = min(10, max(1, len(losses) // 10))
    return median(losses[:part]), median(losses[-part:])


def _smoothed(losses: Sequence[float], width: int = 5) -> list[float]:
    return [median(losses[at : at + width]) for at in range(len(losses) - width + 1)]


def _reward_fault(trained: Sequence[LogRecord]) -> Finding | None:
    """GRPO's loss is near 0 by its making (advantages have mean 0); its gradient must not be."""
    norms = [record.numbers["grad_norm"] for record in trained if "grad_norm" in record.numbers]
    spreads = [record.numbers["reward_std"] for record in trained if "reward_std" in record.numbers]
    if norms and not any(norms):
        if spreads and not any(spreads):
            rewards = sorted({record.numbers.get("reward", 0.0) for record in trained})
            return Finding(
                "reward_flat",
                "every answer to a question got the same reward "
                f"({', '.join(f'{reward:.3g}' for reward in rewards[:3])}), so nothing was learnt",
                "a reward that tells answers apart, a higher swift.temperature, more "
                "swift.num_generations",
            )
        return Finding(
            "grad_zero",
            "every gradient was 0: nothing was learnt",
            "swift.learning_rate above 0, and something that is trained",
        )
    return None


def remarks(records: Sequence[LogRecord], task: str) -> list[str]:
    """What is worth telling of a run that did not fail."""
    trained = [record for record in records if record.loss is not None]
    losses = [record.loss for record in trained if record.loss is not None]
    if task == "grpo" or len(losses) < 2 * _FEWEST:
        return []
    told = []
    third = len(losses) // 3
    before, after = median(losses[:third]), median(losses[-third:])
    if after > _NO_PROGRESS * before:
        told.append(
            f"the loss did not fall ({before:.3f} to {after:.3f}): a higher swift.learning_rate, "
            "or more epochs"
        )
    start, _ = _ends(losses)
    worst = max(range(len(losses)), key=losses.__getitem__)
    if losses[worst] > _JUMPED * start:
        told.append(
            f"the loss jumped to {losses[worst]:.3g} at step {trained[worst].step} and came back: "
            "a lower swift.learning_rate is safer"
        )
    return told
