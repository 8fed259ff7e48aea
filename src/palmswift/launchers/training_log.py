"""Read ms-swift's logging.jsonl while it grows, and show how the training goes."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_INTERVAL = 10.0
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
        self._offset = 0

    def poll(self) -> list[LogRecord]:
        """The records that were added since the last call."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            chunk = stream.read()
        whole = chunk[: chunk.rfind(b"\n") + 1]
        self._offset += len(whole)
        added = [record for line in whole.splitlines() if (record := parse_record(line))]
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
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    return "".join(
        _BARS[round((value - low) / span * (len(_BARS) - 1))] if math.isfinite(value) else "!"
        for value in values
    )


class TrainingView:
    """Progress on stderr: a bar with loss and time left on a terminal, else a line now and then."""

    def __init__(self, log: TrainingLog) -> None:
        """What `log` has been read of before is an earlier attempt's, and is not shown as now."""
        self.log = log
        self._last: LogRecord | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._begun = time.monotonic()
        self._said = 0.0

    def __enter__(self) -> TrainingView:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[curve]}"),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task("ms-swift starts", total=None, curve="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self) -> None:
        """Read the log on and show its last record."""
        trained = [record for record in self.log.poll() if record.loss is not None]
        self._last = last = trained[-1] if trained else self._last
        if self._progress is not None and self._task is not None:
            if last is not None:
                self._progress.update(
                    self._task,
                    description=f"loss {last.loss:.4f}",
                    completed=last.step,
                    total=last.max_steps,
                    curve=sparkline(self.log.losses, 24),
                )
            return
        elapsed = time.monotonic() - self._begun
        if elapsed - self._said < _PLAIN_INTERVAL:
            return
        self._said = elapsed
        if last is None:
            line = f"  {elapsed:4.0f} s  ms-swift starts"
        else:
            line = f"  {elapsed:4.0f} s  step {last.step}/{last.max_steps}  loss {last.loss:.4f}"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
