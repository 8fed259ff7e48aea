"""logging.jsonl is read while it grows, whole lines only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from palmswift.launchers.training_log import (
    LogRecord,
    TrainingLog,
    parse_record,
    sparkline,
)


def test_a_growing_file_gives_each_record_once_and_never_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "logging.jsonl"
    log = TrainingLog(path)
    assert log.poll() == []
    row = json.dumps({"loss": 1.5, "token_acc": 0.5, "global_step/max_steps": "5/10"}) + "\n"
    path.write_text(row + row[:10])
    numbers = {"loss": 1.5, "token_acc": 0.5}
    assert log.poll() == [LogRecord(5, 10, loss=1.5, token_accuracy=0.5, numbers=numbers)]
    path.write_text(row + row.replace("5/10", "6/10"))
    assert len(log.poll()) == 1
    assert log.poll() == []
    assert log.losses == [1.5, 1.5]


def test_the_closing_summary_line_is_no_record() -> None:
    assert parse_record(b'{"train_runtime": 3.0, "global_step/max_steps": "10/10"}') is None
    assert parse_record(b'{"log_history": [], "memory": 0}') is None


@given(st.binary(max_size=60))
def test_any_line_is_a_record_or_none(line: bytes) -> None:
    assert parse_record(line) is None


@given(st.lists(st.floats(), max_size=200), st.integers(min_value=2, max_value=60))
@example([0.0, 2.2250738585072014e-308], 2)
@example([2.2250738585072014e-308, 0.0], 2)
def test_a_sparkline_is_never_wider_than_asked(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


def test_a_sparkline_shows_a_loss_that_is_not_finite() -> None:
    assert sparkline([1.0, float("nan"), 0.0]) == "█!▁"


def _row(step: int, **values: float) -> str:
    return json.dumps({**values, "global_step/max_steps": f"{step}/10"}) + "\n"


def test_steps_that_a_resumed_training_took_again_count_once(tmp_path: Path) -> None:
    path = tmp_path / "logging.jsonl"
    rows = [_row(step, loss=step) + _row(step, eval_loss=step) for step in (1, 2, 3)]
    again = [_row(step, loss=-step) + _row(step, eval_loss=-step) for step in (2, 3, 4)]
    log = TrainingLog(path)
    path.write_text("".join(rows))
    log.poll()
    path.write_text("".join([*rows, *again]))
    log.poll()
    assert log.losses == log.eval_losses == [1, -2, -3, -4]


@given(
    st.dictionaries(
        st.sampled_from(["loss", "eval_loss", "token_acc", "global_step/max_steps"]),
        st.none() | st.floats() | st.text("0123456789/-", max_size=25) | st.booleans(),
    )
)
def test_a_row_of_any_values_is_a_record_of_numbers_or_none(row: dict[str, Any]) -> None:
    record = parse_record(json.dumps(row).encode())
    if record is not None:
        assert isinstance(record.loss, float) or isinstance(record.eval_loss, float)
        assert record.step >= 0


def test_a_curve_of_the_largest_numbers_is_drawn() -> None:
    assert sparkline([-1.7e308, 0.0, 1.7e308]) == "▁▅█"
