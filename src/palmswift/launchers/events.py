"""events.jsonl: what happened in a run, numbered without gaps, written by the launcher alone.

A run is written to by one process at a time (its folder is locked), appended to by every launch,
and read by any number of others while it grows. A torn last line, which a killed launcher leaves,
is cut off by the next one; a reader passes it over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from palmswift.launchers.tail import Tail

Phase = Literal[
    "start",  # ms-swift's imports and arguments
    "download",
    "load",  # the model
    "encode",  # the rows
    "prepare",  # the adapter, the optimizer, what is resumed from
    "train",
    "evaluate",
    "save",
    "end",  # what comes after the last step
]
"""What ms-swift is at."""

PHASES: tuple[Phase, ...] = get_args(Phase)

_BLOCK = 1 << 16


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    n: int = Field(default=0, ge=0)
    """From 1, without gaps, over all launches of the run; given by the journal."""
    time: str = ""
    """UTC, ISO 8601, to the millisecond."""
    at: int | None = None
    """Bytes of the child's file (logging.jsonl or run_events.jsonl) that are told with this."""


class StageEvent(_Event):
    """A stage of the run has begun or ended; run.json has its facts."""

    kind: Literal["stage"] = "stage"
    stage: str
    state: str
    seconds: float | None = None
    """Of all attempts together."""
    error: str = ""


class AttemptEvent(_Event):
    """ms-swift is started."""

    kind: Literal["attempt"] = "attempt"
    command: str
    """sft, pt or rlhf."""
    resumed_from: str = ""
    """The checkpoint's name; empty: from the start."""
    fresh: bool = False
    """Whether the child's files were not there: places in them are counted from 0 again."""


class EndEvent(_Event):
    """ms-swift has ended, and has been judged."""

    kind: Literal["end"] = "end"
    exit_code: int
    seconds: float
    failure: str = ""
    """The class of the failure; empty: the training succeeded."""
    cause: str = ""
    remedy: str = ""


class PhaseEvent(_Event):
    """ms-swift has come to another phase; the one before ended with it."""

    kind: Literal["phase"] = "phase"
    phase: Phase
    step: int = 0
    seconds: float | None = None
    """Since the phase before began."""


class StepEvent(_Event):
    """What ms-swift logged of the steps up to this one."""

    kind: Literal["step"] = "step"
    step: int
    max_steps: int
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    token_accuracy: float | None = None
    tokens_per_second: float | None = None
    """All tokens that went through the model, of all processes, since the log before."""
    supervised_per_second: float | None = None
    """Those that the loss counts."""
    memory_mib: int | None = None
    """Most memory so far: what PyTorch reserved on the card, or the process's, on the CPU."""
    eta_seconds: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    """All other numbers, by ms-swift's names (rewards, margins, ...)."""


class EvaluationEvent(_Event):
    """An evaluation's results."""

    kind: Literal["evaluation"] = "evaluation"
    step: int
    max_steps: int
    loss: float | None = None
    token_accuracy: float | None = None
    seconds: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)


class CheckpointEvent(_Event):
    """A checkpoint was written."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    name: str
    seconds: float


class SilenceEvent(_Event):
    """Nothing was heard of the child for longer than its phase explains; it is left running."""

    kind: Literal["silence"] = "silence"
    phase: Phase
    step: int
    seconds: float
    cpu_percent: float | None = None
    """Of its processes together; 100 is one core."""


class NoteEvent(_Event):
    """Something that the launcher did or decided, in words (a retry, a changed setting)."""

    kind: Literal["note"] = "note"
    topic: str
    text: str


Event = Annotated[
    StageEvent
    | AttemptEvent
    | EndEvent
    | PhaseEvent
    | StepEvent
    | EvaluationEvent
    | CheckpointEvent
    | SilenceEvent
    | NoteEvent,
    Field(discriminator="kind"),
]

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: bytes) -> Event | None:
    """The event of a line; None when it is none (torn, or written by something else)."""
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file, oldest first; a line that is none is passed over."""
    for line in Tail(path).lines():
        if (event := parse_event(line.text)) is not None:
            yield event


def event_line(event: _Event) -> bytes:
    """The event as a line of JSON: what it is first, then what is said; NaN is a string."""
    own = {"n", "time", "kind"}
    head = event.model_dump_json(include=own)
    said = event.model_dump_json(exclude_defaults=True, exclude=own)
    return f"{head[:-1]}{',' if said != '{}' else ''}{said[1:]}\n".encode()


class EventJournal:
    """Appends events to a run's file; only the process that holds the run's lock may write.

    A line is with the operating system when `add` returns. What cannot be written (a full disk)
    waits in order for the next event, so the numbers stay without gaps; a training is not ended
    by it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[_Event] = []
        self._size: int | None = None
        self._last = 0

    def add(self, event: _Event) -> None:
        """Write the event with the next number and the time of now."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._waiting.append(event.model_copy(update={"time": now}))
        with contextlib.suppress(OSError):
            self._write()

    def note(self, topic: str, text: str) -> None:
        """Write down what the launcher did, in words."""
        self.add(NoteEvent(topic=topic, text=text))

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:
            if stream.tell() != self._size:  # not read yet, half-written, or somebody else wrote
                self._size, self._last = _last_whole(stream)
            # What a killed launcher or a full disk left half-written goes.
            stream.truncate(self._size)
            numbered = [
                event.model_copy(update={"n": self._last + place})
                for place, event in enumerate(self._waiting, start=1)
            ]
            data = b"".join(map(event_line, numbered))
            stream.write(data)
            stream.flush()
        self._size += len(data)
        self._last += len(numbered)
        self._waiting.clear()


def _last_whole(stream: IO[bytes]) -> tuple[int, int]:
    """Where the last line with a number ends, and the number; (0, 0) when there is none."""
    end = stream.seek(0, 2)
    tail = b""
    start = end
    while start > 0:
        step = min(_BLOCK, start)
        start -= step
        stream.seek(start)
        tail = stream.read(step) + tail
        lines = tail.splitlines(keepends=True)
        position = end
        for line in reversed(lines if start == 0 else lines[1:]):
            if line.endswith(b"\n") and (number := _number(line)):
                return position, number
            position -= len(line)
    return 0, 0


def _number(line: bytes) -> int:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    number = document.get("n") if isinstance(document, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else 0
