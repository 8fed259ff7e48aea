"""What the child tells in its files, as events in the run's journal and as the state of now."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.launchers.events import (
    PHASES,
    AttemptEvent,
    CheckpointEvent,
    EvaluationEvent,
    Event,
    EventJournal,
    Phase,
    PhaseEvent,
    StepEvent,
    read_events,
)
from palmswift.launchers.tail import Tail
from palmswift.launchers.training_log import LogRecord, parse_record

OWN_FILE = "run_events.jsonl"
"""Written by the plugin run_events, beside ms-swift's logging.jsonl."""
HEARTBEAT = "heartbeat.json"

_TOLD = {
    *("loss", "learning_rate", "grad_norm", "token_acc", "epoch", "memory_mib", "memory(GiB)"),
    *("tokens_per_second", "supervised_tokens_per_second", "train_speed(s/it)"),
    *("eval_loss", "eval_token_acc", "eval_runtime"),
}
"""Numbers of ms-swift's log that have a field of their own in the event."""


class Beat(BaseModel):
    """heartbeat.json: where the child was a moment ago."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    phase: Phase
    step: int
    done: int = 0
    total: int = 0
    time: float


class Told(NamedTuple):
    """What a line of the plugin's file says: a phase begins, or a checkpoint was written."""

    time: float
    step: int
    phase: Phase | None = None
    checkpoint: str = ""
    seconds: float = 0.0


@dataclass
class Progress:
    """How far one launch of the child has come. Times are seconds of this launch."""

    phase: Phase = "start"
    phase_since: float = 0.0
    phase_seconds: dict[Phase, float] = field(default_factory=dict)
    """Of the phases that have ended, all their times together."""
    phase_count: dict[Phase, int] = field(default_factory=lambda: {"start": 1})
    step: int = 0
    max_steps: int = 0
    within: tuple[int, int] = (0, 0)
    """Micro steps of the step, or batches of the evaluation: done, and in all (0: not known)."""
    last: StepEvent | None = None
    evaluation: EvaluationEvent | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)
    """Step and loss, of earlier launches too, steps that were taken again once."""
    heard: float = 0.0
    """When the child last wrote anything."""

    def enter(self, phase: Phase, now: float) -> None:
        """Another phase begins."""
        spent = max(0.0, now - self.phase_since)
        self.phase_seconds[self.phase] = self.phase_seconds.get(self.phase, 0.0) + spent
        self.phase, self.phase_since = phase, now
        self.phase_count[phase] = self.phase_count.get(phase, 0) + 1

    def took(self, event: StepEvent) -> None:
        """A step was logged."""
        self.last = event
        self.step, self.max_steps = max(self.step, event.step), event.max_steps
        if event.loss is not None:
            while self.losses and self.losses[-1][0] >= event.step:
                self.losses.pop()
            self.losses.append((event.step, event.loss))


class Feed:
    """Reads what the child writes, puts it into the journal, and keeps the progress.

    What an earlier launcher had put there is not put there again: each event of the journal has
    the place in the child's file up to which it tells. Records that nobody told before the launch
    (the launcher was killed) are told, and are not taken for this launch's.
    """

    def __init__(
        self,
        output: Path,
        log: Path,
        journal: EventJournal,
        attempt: AttemptEvent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log` is the child's raw output, `attempt` the launch; `clock` gives seconds that never
        go back."""
        self.journal = journal
        self.progress = Progress()
        self._clock = clock
        self._begun, self._begun_at = clock(), time.time()
        self._heartbeat = output / HEARTBEAT
        self._beaten = self._read_beat()
        self._log = log
        self._log_size = _size(log)
        places = [_Place(output / "logging.jsonl"), _Place(output / OWN_FILE)]
        for event in read_events(journal.path):
            if isinstance(event, AttemptEvent) and event.fresh:
                for place in places:
                    place.at = 0
            places[isinstance(event, PhaseEvent | CheckpointEvent)].told(event.at)
            if isinstance(event, StepEvent):
                self.progress.took(event)
        self._steps, self._own = (place.tail() for place in places)
        self._catch_up()
        fresh = not any(_size(place.path) for place in places)
        journal.add(attempt.model_copy(update={"fresh": fresh}))
        self.progress.last, self.progress.step, self.progress.max_steps = None, 0, 0

    @property
    def seconds(self) -> float:
        """Since the launch."""
        return self._clock() - self._begun

    @property
    def silent(self) -> float:
        """Seconds since the child last wrote anything."""
        return self.seconds - self.progress.heard

    def poll(self) -> list[Event]:
        """Read on; the events that came, in the order in which they happened."""
        now, progress = self.seconds, self.progress
        own: list[PhaseEvent | CheckpointEvent] = []
        for line in self._own.lines():
            if told := _told(line.text):
                happened = self._event_of(told, line.end)
                own.append(happened)
                if isinstance(happened, PhaseEvent):
                    # The child's clock and ours are the same machine's.
                    progress.enter(happened.phase, min(now, max(0.0, told.time - self._begun_at)))
        rows = self._rows()
        for row in rows:
            if isinstance(row, StepEvent):
                progress.took(row)
            else:
                progress.evaluation = row
        self._listen(now, heard=bool(own or rows))
        return self._journal(own, rows)

    def _rows(self) -> list[StepEvent | EvaluationEvent]:
        return [
            _event(record, line.end)
            for line in self._steps.lines()
            if (record := parse_record(line.text))
        ]

    def _journal(
        self,
        own: Sequence[PhaseEvent | CheckpointEvent],
        rows: Sequence[StepEvent | EvaluationEvent],
    ) -> list[Event]:
        """Write both down, a step's numbers before what followed on the step."""
        events: list[Event] = []
        waiting = deque(rows)
        for happened in own:
            step = happened.step
            evaluates = isinstance(happened, PhaseEvent) and happened.phase == "evaluate"
            while waiting and waiting[0].step <= step:
                first = waiting[0]
                if evaluates and isinstance(first, EvaluationEvent) and first.step == step:
                    break
                events.append(waiting.popleft())
            events.append(happened)
        events += waiting
        for event in events:
            self.journal.add(event)
        return events

    def _event_of(self, told: Told, at: int) -> PhaseEvent | CheckpointEvent:
        if told.phase is None:
            return CheckpointEvent(
                step=told.step, name=told.checkpoint, seconds=told.seconds, at=at
            )
        spent = max(0.0, told.time - self._begun_at - self.progress.phase_since)
        return PhaseEvent(phase=told.phase, step=told.step, seconds=round(spent, 3), at=at)

    def _listen(self, now: float, *, heard: bool) -> None:
        """Note the heartbeat, and whether anything at all was written."""
        beat, size = self._read_beat(), _size(self._log)
        if heard or size != self._log_size or beat != self._beaten:
            self.progress.heard = now
        self._log_size = size
        if beat is None or beat == self._beaten:
            return
        self._beaten = beat
        self.progress.step = max(self.progress.step, beat.step)
        self.progress.within = (beat.done, beat.total)

    def _catch_up(self) -> None:
        """Tell what an earlier launch's child wrote after its launcher was gone."""
        own = [
            self._event_of(told._replace(time=0.0), line.end)
            for line in self._own.lines()
            if (told := _told(line.text))
        ]
        rows = self._rows()
        for row in rows:
            if isinstance(row, StepEvent):
                self.progress.took(row)
        self._journal(own, rows)

    def _read_beat(self) -> Beat | None:
        try:
            return Beat.model_validate_json(self._heartbeat.read_bytes())
        except (OSError, ValidationError):
            return None


class _Place:
    """How far a file has been told of in the journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at = 0

    def told(self, at: int | None) -> None:
        self.at = at or self.at

    def tail(self) -> Tail:
        """A reader from there on; of a file that is shorter, and so another one, from its start."""
        return Tail(self.path, self.at if _size(self.path) >= self.at else 0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _told(line: bytes) -> Told | None:
    try:
        row = json.loads(line)
        told = Told(
            time=float(row["time"]),
            step=int(row.get("step", 0)),
            phase=cast(Phase, row["phase"]) if row.get("phase") in PHASES else None,
            checkpoint=str(row.get("checkpoint", "")),
            seconds=float(row.get("seconds", 0.0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return told if told.phase or told.checkpoint else None


def _event(record: LogRecord, at: int) -> StepEvent | EvaluationEvent:
    """A row of logging.jsonl as an event."""
    numbers = record.numbers
    rest = {name: value for name, value in numbers.items() if name not in _TOLD}
    if record.is_evaluation:
        return EvaluationEvent(
            step=record.step,
            max_steps=record.max_steps,
            loss=record.eval_loss,
            token_accuracy=numbers.get("eval_token_acc"),
            seconds=numbers.get("eval_runtime"),
            metrics=rest,
            at=at,
        )
    memory = numbers.get("memory_mib", numbers.get("memory(GiB)", math.nan) * 1024)
    seconds = numbers.get("train_speed(s/it)")
    return StepEvent(
        step=record.step,
        max_steps=record.max_steps,
        epoch=numbers.get("epoch"),
        loss=record.loss,
        learning_rate=numbers.get("learning_rate"),
        grad_norm=numbers.get("grad_norm"),
        token_accuracy=record.token_accuracy,
        tokens_per_second=numbers.get("tokens_per_second"),
        supervised_per_second=numbers.get("supervised_tokens_per_second"),
        memory_mib=round(memory) if math.isfinite(memory) else None,
        eta_seconds=None if seconds is None else seconds * (record.max_steps - record.step),
        metrics=rest,
        at=at,
    )


def curve(events: Iterable[Event]) -> tuple[list[StepEvent], list[EvaluationEvent]]:
    """The steps and the evaluations, each step once: of one that was taken again, the last time."""
    steps: dict[int, StepEvent] = {}
    evaluations: dict[int, EvaluationEvent] = {}
    for event in events:
        if isinstance(event, StepEvent):
            for later in [step for step in reversed(steps) if step >= event.step]:
                del steps[later]
            steps[event.step] = event
        elif isinstance(event, EvaluationEvent):
            for later in [step for step in reversed(evaluations) if step >= event.step]:
                del evaluations[later]
            evaluations[event.step] = event
    return list(steps.values()), list(evaluations.values())
