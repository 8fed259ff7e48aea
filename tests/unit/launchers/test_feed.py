"""What the child writes is told once, in order, whoever is killed in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.launchers.events import (
    AttemptEvent,
    CheckpointEvent,
    EvaluationEvent,
    EventJournal,
    PhaseEvent,
    StepEvent,
    read_events,
)
from palmswift.launchers.feed import Feed, curve


class Child:
    """Writes as ms-swift and the plugin do."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "train"
        self.output.mkdir(exist_ok=True)
        self.log = folder / "train.log"
        self.journal = folder / "events.jsonl"

    def feed(self, clock: list[float] | None = None) -> Feed:
        ticking = clock if clock is not None else [0.0]
        journal = EventJournal(self.journal)
        attempt = AttemptEvent(command="sft")
        return Feed(self.output, self.log, journal, attempt, lambda: ticking[0])

    def row(self, step: int, **values: float) -> None:
        line = json.dumps({**values, "global_step/max_steps": f"{step}/10"}) + "\n"
        with (self.output / "logging.jsonl").open("a") as file:
            file.write(line)

    def own(self, **values: object) -> None:
        with (self.output / "run_events.jsonl").open("a") as file:
            file.write(json.dumps({"time": 0.0, **values}) + "\n")

    def told(self) -> list[str]:
        words = []
        for event in read_events(self.journal):
            if isinstance(event, StepEvent):
                words.append(f"step {event.step}")
            elif isinstance(event, EvaluationEvent):
                words.append(f"eval {event.step}")
            elif isinstance(event, PhaseEvent):
                words.append(event.phase)
            elif isinstance(event, CheckpointEvent):
                words.append(event.name)
        return words


@pytest.fixture
def child(tmp_path: Path) -> Child:
    return Child(tmp_path)


def test_a_steps_numbers_stand_before_the_evaluation_and_the_saving_on_it(child: Child) -> None:
    feed = child.feed()
    child.own(phase="load")
    child.own(phase="train", step=0)
    child.row(1, loss=2.0)
    child.row(2, loss=1.0)
    child.own(phase="evaluate", step=2)
    child.row(2, eval_loss=1.5)
    child.own(phase="train", step=2)
    child.own(phase="save", step=2)
    child.own(checkpoint="checkpoint-2", step=2, seconds=0.5)
    child.own(phase="train", step=2)
    child.row(3, loss=0.5)
    feed.poll()
    assert child.told() == [
        *("load", "train", "step 1", "step 2", "evaluate", "eval 2", "train", "save"),
        *("checkpoint-2", "train", "step 3"),
    ]


def test_numbers_have_their_names_and_the_rest_is_kept_by_ms_swifts(child: Child) -> None:
    feed = child.feed()
    child.row(
        4,
        loss=1.0,
        **{
            "learning_rate": 1e-4,
            "grad_norm": 0.5,
            "token_acc": 0.7,
            "epoch": 1.5,
            "memory(GiB)": 2.0,
            "train_speed(s/it)": 3.0,
            "rewards/margins": 0.25,
        },
    )
    child.row(4, eval_loss=1.25, eval_runtime=2.0, eval_token_acc=0.5, **{"eval_reward": 1.0})
    step, evaluation = feed.poll()
    assert isinstance(step, StepEvent) and isinstance(evaluation, EvaluationEvent)
    assert (step.learning_rate, step.grad_norm, step.token_accuracy) == (1e-4, 0.5, 0.7)
    assert (step.epoch, step.memory_mib, step.eta_seconds) == (1.5, 2048, 18.0)
    assert step.metrics == {"rewards/margins": 0.25}
    assert (evaluation.loss, evaluation.seconds, evaluation.token_accuracy) == (1.25, 2.0, 0.5)
    assert evaluation.metrics == {"eval_reward": 1.0}


def test_phases_are_timed_and_counted(child: Child) -> None:
    clock = [0.0]
    feed = child.feed(clock)
    begun = feed._begun_at
    for phase, at in (("load", 10.0), ("train", 14.0), ("evaluate", 20.0), ("train", 21.0)):
        clock[0] = at + 0.3
        child.own(phase=phase, time=begun + at)
        feed.poll()
    progress = feed.progress
    assert progress.phase == "train"
    assert progress.phase_seconds == pytest.approx(
        {"start": 10.0, "load": 4.0, "train": 6.0, "evaluate": 1.0}, abs=1e-5
    )
    assert progress.phase_count == {"start": 1, "load": 1, "train": 2, "evaluate": 1}


def test_a_clock_that_jumps_makes_no_negative_time(child: Child) -> None:
    clock = [0.0]
    feed = child.feed(clock)
    for phase, at in (("load", 1e12), ("train", -5.0)):
        clock[0] += 1.0
        child.own(phase=phase, time=at)
        feed.poll()
    assert all(seconds >= 0 for seconds in feed.progress.phase_seconds.values())
    assert 0 <= feed.progress.phase_since <= 2.0


def test_the_heartbeat_tells_the_step_between_logs_and_that_it_lives(child: Child) -> None:
    clock = [0.0]
    beat = {"phase": "train", "step": 3, "done": 1, "total": 8, "time": 1.0}
    (child.output / "heartbeat.json").write_text(json.dumps({**beat, "step": 99}))
    feed = child.feed(clock)
    clock[0] = 5.0
    feed.poll()
    assert (feed.progress.step, feed.silent) == (0, 5.0), "an earlier launch's was believed"
    (child.output / "heartbeat.json").write_text(json.dumps(beat))
    feed.poll()
    assert (feed.progress.step, feed.progress.within, feed.silent) == (3, (1, 8), 0.0)
    clock[0] = 9.0
    feed.poll()
    assert feed.silent == 4.0
    child.log.write_text("a word\n")
    feed.poll()
    assert feed.silent == 0.0


def test_what_is_no_line_of_ours_is_passed_over(child: Child) -> None:
    feed = child.feed()
    for text in ("[]", "{", '{"phase": "nap", "time": 1}', '{"phase": "load"}', "\0\0", "null"):
        with (child.output / "run_events.jsonl").open("a") as file:
            file.write(text + "\n")
    assert feed.poll() == []


_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("row"), st.integers(1, 10)),
        st.tuples(st.just("own"), st.integers(1, 10)),
        st.tuples(st.just("poll"), st.just(0)),
        st.tuples(st.just("kill"), st.just(0)),
        st.tuples(st.just("anew"), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(actions=_ACTIONS)
def test_every_line_is_told_once_whenever_the_launcher_is_killed(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]]
) -> None:
    child = Child(tmp_path_factory.mktemp("run"))
    feed, written, owned = child.feed(), 0, 0
    for action, step in actions:
        if action == "row":
            written += 1
            child.row(step, loss=float(written))
        elif action == "own":
            owned += 1
            child.own(checkpoint=f"checkpoint-{owned}", step=step)
        elif action == "poll":
            feed.poll()
        elif action == "kill":
            feed = child.feed()
        else:  # an attempt without a checkpoint is cleared away, and the next one is launched
            feed.poll()
            for file in child.output.iterdir():
                file.unlink()
            feed = child.feed()
    feed.poll()
    events = list(read_events(child.journal))
    losses = [event.loss for event in events if isinstance(event, StepEvent)]
    names = [event.name for event in events if isinstance(event, CheckpointEvent)]
    assert losses == [float(number) for number in range(1, written + 1)]
    assert names == [f"checkpoint-{number}" for number in range(1, owned + 1)]
    assert [event.n for event in events] == list(range(1, len(events) + 1))


def test_a_resumed_trainings_curve_has_each_step_once(child: Child) -> None:
    feed = child.feed()
    for step in (1, 2, 3):
        child.row(step, loss=float(step))
        child.row(step, eval_loss=float(step))
    feed.poll()
    feed = child.feed()
    assert feed.progress.step == 0, "an earlier launch's step is not this one's"
    for step in (2, 3, 4):
        child.row(step, loss=-float(step))
    feed.poll()
    steps, evaluations = curve(read_events(child.journal))
    assert [(step.step, step.loss) for step in steps] == [(1, 1.0), (2, -2.0), (3, -3.0), (4, -4.0)]
    assert [event.step for event in evaluations] == [1, 2, 3]
    assert feed.progress.losses == [(1, 1.0), (2, -2.0), (3, -3.0), (4, -4.0)]
