"""Events as the lines that people read: while a training runs, and of one that ran."""

from __future__ import annotations

from palmswift.launchers.events import (
    AttemptEvent,
    CheckpointEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    NoteEvent,
    PhaseEvent,
    SilenceEvent,
    StageEvent,
    StepEvent,
)

PHASE_WORDS = {
    "start": "ms-swift starts",
    "download": "the model is fetched from the hub",
    "load": "the model is loaded",
    "encode": "the rows are encoded",
    "prepare": "the training is prepared",
    "train": "training",
    "evaluate": "evaluating",
    "save": "saving a checkpoint",
    "end": "closing",
}


def describe(event: Event) -> str:
    """The event in a line."""
    if isinstance(event, StepEvent):
        return f"step {event.step}/{event.max_steps}  " + "  ".join(step_words(event))
    if isinstance(event, EvaluationEvent):
        return f"evaluated at step {event.step}: {evaluation_words(event)}"
    if isinstance(event, CheckpointEvent):
        return f"saved {event.name} in {duration(event.seconds)}"
    if isinstance(event, PhaseEvent):
        return PHASE_WORDS[event.phase]
    if isinstance(event, StageEvent):
        took = "" if event.seconds is None else f" after {duration(event.seconds)}"
        return f"stage {event.stage}: {event.state}{took}"
    if isinstance(event, AttemptEvent):
        return f"swift {event.command} is started" + (
            f", from {event.resumed_from}" if event.resumed_from else ""
        )
    if isinstance(event, SilenceEvent):
        return silence_words(event)
    if isinstance(event, NoteEvent):
        return f"{event.topic}: {event.text}"
    return end_words(event)


def step_words(event: StepEvent) -> list[str]:
    """Loss, rate, gradient, accuracy, speed, time left: those that are known."""
    words = []
    if event.loss is not None:
        words.append(f"loss {event.loss:.4f}")
    if event.learning_rate is not None:
        words.append(f"lr {event.learning_rate:.2e}")
    if event.grad_norm is not None:
        words.append(f"grad {event.grad_norm:.3g}")
    if event.token_accuracy is not None:
        words.append(f"acc {event.token_accuracy:.3f}")
    if event.tokens_per_second is not None:
        words.append(f"{event.tokens_per_second:,.0f} tokens/s")
    if event.eta_seconds:
        words.append(f"{duration(event.eta_seconds)} left")
    return words


def evaluation_words(event: EvaluationEvent) -> str:
    """Loss, accuracy and time of an evaluation."""
    words = []
    if event.loss is not None:
        words.append(f"loss {event.loss:.4f}")
    if event.token_accuracy is not None:
        words.append(f"acc {event.token_accuracy:.3f}")
    if event.seconds is not None:
        words.append(f"in {duration(event.seconds)}")
    return "  ".join(words) or "no numbers"


def silence_words(event: SilenceEvent) -> str:
    """What a child that says nothing was at, and whether it works at all."""
    where = f" (step {event.step})" if event.step else ""
    busy = ""
    if event.cpu_percent is not None:
        busy = f"; its processes use {event.cpu_percent:.0f} % of a processor core"
    return (
        f"nothing heard for {duration(event.seconds)} while {PHASE_WORDS[event.phase]}{where}"
        f"{busy}; it is left running, Ctrl-C stops it"
    )


def end_words(event: EndEvent) -> str:
    """How ms-swift ended."""
    if event.failure:
        return f"failed ({event.failure}): {event.cause}"
    return f"ended well after {duration(event.seconds)}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3:05` (minutes) or `2:03:05` (hours)."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
