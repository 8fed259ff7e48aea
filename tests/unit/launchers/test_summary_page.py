"""A run's page: one file, offline, in two languages, whatever the run came to."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_runs import make_run

from palmswift.launchers.curves import HEIGHT, WIDTH, panels, smoothed, thinned, ticks
from palmswift.launchers.events import (
    AttemptEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    PhaseEvent,
    SilenceEvent,
    StepEvent,
)
from palmswift.launchers.run_folder import RunFolder
from palmswift.launchers.summary_page import phase_seconds, write_summary

EVIL = "</style></script><script>alert(1)</script>'\"{{7*7}}"


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs"))


def _trained(run: RunFolder, steps: int = 30, **fields: float) -> None:
    run.events.add(AttemptEvent(command="sft"))
    run.events.add(PhaseEvent(phase="load", seconds=8.0))
    run.events.add(PhaseEvent(phase="train", seconds=2.0))
    for step in range(1, steps + 1):
        event = StepEvent(step=step, max_steps=steps, loss=4.0 / step, memory_mib=700 + step)
        run.events.add(event.model_copy(update=fields))
    run.events.add(EvaluationEvent(step=steps, max_steps=steps, loss=0.5))
    run.events.add(EndEvent(exit_code=0, seconds=30.0))


def _page(run: RunFolder) -> Elements:
    path = write_summary(run)
    assert path.stat().st_size < 200_000
    return Elements(path.read_text(encoding="utf-8"))


def test_a_finished_runs_page_has_its_curves_its_numbers_and_what_to_do_next(
    run: RunFolder,
) -> None:
    with run.stage("data") as facts:
        facts.update(read=12, kept=10, train=8, val=2, rejected=2)
    with run.stage("train") as facts:
        _trained(run, learning_rate=1e-4, grad_norm=0.5, tokens_per_second=1000.0)
        facts.update(steps=30, last_loss=0.1333, checkpoint="train/checkpoint-30")
        facts.update(eval_losses=[0.5], memory={"measured_mib": 730, "planned_mib": 800})
    page = _page(run)
    for words in (
        *("The training succeeded.", "训练成功", "train/checkpoint-30", "0.1333", "730"),
        *("deploy/serve.py --run", "runs.py reproduce", "tensorboard --logdir"),
        *("Loss", "Learning rate", "Gradient norm", "Tokens a second", "Memory, MiB", "planned"),
        *("20 s", "learning_rate: 0.0001", "python", "trained on"),
    ):
        assert words in page.text, words
    assert page.names.count("figure") == 5
    assert page.links == [], "it needs no network"


def test_a_failed_runs_page_says_why_and_what_to_do(run: RunFolder) -> None:
    failure = {"kind": "out_of_memory", "cause": "the memory ran out", "remedy": "a smaller batch"}
    with pytest.raises(RuntimeError), run.stage("train") as facts:
        run.events.add(AttemptEvent(command="sft"))
        run.events.add(SilenceEvent(phase="load", step=0, seconds=700.0))
        run.events.add(EndEvent(exit_code=1, seconds=3.0, failure="out_of_memory", cause="it"))
        run.events.note("recovery", "micro-batch 4 -> 2")
        facts["failure"] = failure
        raise RuntimeError("the training failed")
    text = _page(run).text
    for words in (*failure.values(), "nothing heard for", "micro-batch 4 -> 2", "--resume"):
        assert words in text
    assert "deploy/serve.py" not in text


def test_a_stopped_runs_page_says_that_it_can_go_on(run: RunFolder) -> None:
    with pytest.raises(KeyboardInterrupt), run.stage("train"):
        raise KeyboardInterrupt
    assert "it can go on" in _page(run).text


def test_a_run_whose_files_are_damaged_or_gone_still_has_a_page(run: RunFolder) -> None:
    with run.stage("train") as facts:
        facts.update(steps=None, memory=None, failure="?", eval_losses=[])
    run.events.path.write_bytes(b"\xff\n{}\n[]\n")
    (run.path / "plan.json").write_text("[")
    run.state.hardware = {}
    assert "The training succeeded." in _page(run).text


def test_what_a_run_holds_is_text_and_never_markup(run: RunFolder) -> None:
    with run.stage("train") as facts:
        _trained(run)
        facts["checkpoint"] = EVIL
    run.events.note(EVIL, EVIL)
    (run.path / "command.sh").write_text(EVIL)
    run.state.versions[EVIL] = EVIL
    page = _page(run)
    assert page.names.count("script") == page.names.count("style") == 1
    assert EVIL in page.text


def test_a_long_runs_page_stays_small(run: RunFolder) -> None:
    with run.stage("train"):
        _trained(run, 3000, grad_norm=1.0, learning_rate=1e-5, token_accuracy=0.5)
    _page(run)


def test_phases_have_their_time_over_all_launches() -> None:
    events: list[Event] = [
        AttemptEvent(command="sft"),
        PhaseEvent(phase="load", seconds=8.0),
        PhaseEvent(phase="train", seconds=2.0),
        AttemptEvent(command="sft"),  # the launcher was killed: no end
        PhaseEvent(phase="load", seconds=7.0),
        EndEvent(exit_code=0, seconds=10.0),
    ]
    assert phase_seconds(events) == {"start": 15.0, "load": 5.0}


_values = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(_values, _values, st.integers(0, 10**6)), max_size=400))
def test_any_numbers_are_drawn_within_their_frame(rows: list[tuple[float, float, int]]) -> None:
    steps = [
        StepEvent(step=number, max_steps=9, loss=loss, grad_norm=norm, memory_mib=memory)
        for number, (loss, norm, memory) in enumerate(rows)
    ]
    for panel in panels(steps, [], planned_mib=100):
        for curve in panel.curves:
            numbers = re.findall(r"-?[\d.]+(?:e[+-]?\d+)?|nan|inf", curve.path)
            xs, ys = [float(x) for x in numbers[::2]], [float(y) for y in numbers[1::2]]
            xs += [x for x, _ in curve.dots]
            ys += [y for _, y in curve.dots]
            assert all(0 <= x <= WIDTH for x in xs), curve
            assert all(-0.1 <= y <= HEIGHT + 0.1 for y in ys), curve


def test_a_value_that_cannot_be_drawn_is_counted() -> None:
    steps = [StepEvent(step=n, max_steps=3, loss=float("nan") if n == 2 else n) for n in (1, 2, 3)]
    [panel] = panels(steps, [])
    assert panel.broken == 1


def test_a_methods_own_numbers_have_panels_rewards_first() -> None:
    steps = [
        StepEvent(step=n, max_steps=9, metrics={"a": n, "rewards/margins": n / 2, "same": 1.0})
        for n in range(9)
    ]
    assert [panel.en for panel in panels(steps, [])] == ["rewards/margins", "a"]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e9, 1e9)), max_size=1000))
def test_a_thinned_line_keeps_its_extremes(points: list[tuple[int, float]]) -> None:
    line = sorted((float(x), y) for x, y in points)
    kept = thinned(line)
    assert len(kept) <= 240
    if line:
        assert min(y for _, y in kept) == min(y for _, y in line)
        assert max(y for _, y in kept) == max(y for _, y in line)


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12), st.integers(2, 8))
def test_ticks_lie_within_the_axis_and_are_few(low: float, span: float, most: int) -> None:
    high = low + span
    found = ticks(low, high, most)
    assert len(found) <= most + 2
    assert all(low <= tick <= high for tick in found)


def test_smoothing_starts_where_the_line_starts() -> None:
    line = smoothed([(float(n), 5.0) for n in range(50)])
    assert all(math.isclose(y, 5.0) for _, y in line)


def test_the_journal_may_hold_numbers_as_strings(run: RunFolder) -> None:
    run.events.add(StepEvent(step=1, max_steps=2, loss=float("inf")))
    run.events.add(StepEvent(step=2, max_steps=2, loss=1.0))
    assert json.loads(run.events.path.read_text().splitlines()[0])["loss"] == "Infinity"
    with run.stage("train"):
        pass
    assert "1 values are NaN or infinite" in _page(run).text
