"""Read ms-swift's logging.jsonl while it grows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from palmswift.launchers.tail import Tail

_BARS = "▁▂▃▄▅▆▇█"
_NOTHING: Mapping[str, float] = MappingProxyType({})


class LogRecord(NamedTuple):
    """One logged step: a training loss, or an evaluation's."""

    step: int
    max_steps: int
    loss: float | None = None
    eval_loss: float | None = None
    token_accuracy: float | None = None
    numbers: Mapping[str, float] = _NOTHING
    """All numbers of the row, by ms-swift's names."""

    @property
    def is_evaluation(self) -> bool:
        """Whether it is an evaluation's record."""
        return self.loss is None


class TrainingLog:
    """The records of a `logging.jsonl`, read as far as it has been written (whole lines only).

    A resumed training takes some steps again and appends to the same file: the later record of a
    step replaces the earlier ones from there on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[LogRecord] = []
        self._tail = Tail(path)

    def poll(self) -> list[LogRecord]:
        """The records that were added since the last call."""
        added = [record for line in self._tail.lines() if (record := parse_record(line.text))]
        for record in added:
            self._append(record)
        return added

    def _append(self, record: LogRecord) -> None:
        if self.records and self.records[-1].step >= record.step:
            self.records = [
                earlier
                for earlier in self.records
                if earlier.step < record.step
                or (earlier.step == record.step and earlier.is_evaluation != record.is_evaluation)
            ]
        self.records.append(record)

    @property
    def losses(self) -> list[float]:
        """Training losses in the order of their steps."""
        return [record.loss for record in self.records if record.loss is not None]

    @property
    def eval_losses(self) -> list[float]:
        """Evaluation losses in the order of their steps."""
        return [record.eval_loss for record in self.records if record.eval_loss is not None]


def parse_record(line: bytes) -> LogRecord | None:
    """A line of logging.jsonl; None for lines that hold no step or no loss."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    progress = _PROGRESS.fullmatch(str(row.get("global_step/max_steps")))
    loss, eval_loss = _number(row.get("loss")), _number(row.get("eval_loss"))
    if progress is None or (loss is None and eval_loss is None):
        return None
    return LogRecord(
        step=int(progress[1]),
        max_steps=int(progress[2]),
        loss=loss,
        eval_loss=eval_loss,
        token_accuracy=_number(row.get("token_acc")),
        numbers={name: number for name in row if (number := _number(row[name])) is not None},
    )


_PROGRESS = re.compile(r"(\d{1,15})/(\d{1,15})")


def _number(value: object) -> float | None:
    """The value where it is a number, NaN and infinity included."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def sparkline(values: list[float], width: int = 40) -> str:
    """The values as one line of block characters; values that are not finite show as `!`."""
    if len(values) > width:
        size = len(values) / width
        values = [values[int(index * size)] for index in range(width - 1)] + [values[-1]]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "!" * len(values)
    low, high = min(finite) / 2, max(finite) / 2  # a whole range may be more than a float holds
    spread, top = (high - low) or 1.0, len(_BARS) - 1
    return "".join(
        # Divided first: the inverse of the least spread is more than a float holds, too.
        _BARS[round((value / 2 - low) / spread * top)] if math.isfinite(value) else "!"
        for value in values
    )
