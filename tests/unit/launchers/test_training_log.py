"""logging.jsonl is read while it grows, whole lines only."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from palmswift.launchers.training_log import LogRecord, TrainingLog, parse_record, sparkline


def test_a_growing_file_gives_each_record_once_and_never_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "logging.jsonl"
    log = TrainingLog(path)
    assert log.poll() == []
    row = json.dumps({"loss": 1.5, "token_acc": 0.5, "global_step/max_steps": "5/10"}) + "\n"
    path.write_text(row + row[:10])
    assert log.poll() == [LogRecord(5, 10, loss=1.5, token_accuracy=0.5)]
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
def test_a_sparkline_is_never_wider_than_asked(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


def test_a_sparkline_shows_a_loss_that_is_not_finite() -> None:
    assert sparkline([1.0, float("nan"), 0.0]) == "█!▁"
