"""The parts of the measuring kit: rows of exact lengths, the grid, the search, the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.memory.cases import Case, grid, longest, measured_recipe
from benchmarks.memory.materials import Overhead, make_rows
from benchmarks.memory.measure import main
from benchmarks.memory.runner import LogLine, Measured, Peak, peaks_by_phase, read_log
from benchmarks.memory.session import Record, beyond
from palmswift.files import read_jsonl, write_jsonl


@given(st.integers(0, 5000), st.integers(64, 4096))
def test_the_longest_row_is_found_and_no_length_is_tried_twice(limit: int, high: int) -> None:
    tried: list[int] = []

    def fits(length: int) -> bool:
        tried.append(length)
        return length <= limit

    found = longest(fits, 64, high)
    assert found == min(limit, high) // 64 * 64
    assert len(tried) == len(set(tried)) <= 9


def test_rows_have_the_tokens_that_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    make_rows(path, Overhead(tokens=20, supervised=2), length=128, supervised=40, rows=3)
    rows = list(read_jsonl(path))
    assert len(rows) == 3
    question, answer = (message["content"] for message in rows[0]["messages"])
    assert len(answer) == 38  # a letter a token, and two of the template's
    assert len(question) + len(answer) + 20 == 128


def test_a_row_that_the_template_leaves_no_room_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the template takes 20, 2 of them supervised"):
        make_rows(tmp_path / "rows", Overhead(20, 2), length=24, supervised=20, rows=1)


def test_the_grid_varies_rank_length_liger_and_the_adapters_type() -> None:
    cases = grid("qwen3_8b_4bit", [512, 1024], cap_mib=7688)
    assert len(cases) == len(set(cases)) == 3 * 2 * 2 * 2
    assert {case.length for case in cases} == {512, 1024}


def test_a_measured_recipe_is_three_steps_long_logs_memory_and_keeps_the_rest(
    tmp_path: Path,
) -> None:
    case = Case("qwen3_8b_4bit", 2048, 1024, ("swift.lora_rank=64",), cap_mib=7688)
    recipe = measured_recipe(case, tmp_path)
    assert recipe.plugins == ["memory_log", "gpu_cap"]
    assert recipe.env["PALMSWIFT_GPU_CAP_MIB"] == "7688"
    assert recipe.swift["max_steps"] == 3
    assert recipe.swift["max_length"] == 2048
    assert recipe.swift["lora_rank"] == 64
    assert recipe.swift["quant_bits"] == 4
    assert "num_train_epochs" not in recipe.swift
    assert recipe.model.id == str(tmp_path)


def test_a_card_that_is_not_capped_is_given_no_cap(tmp_path: Path) -> None:
    assert measured_recipe(Case("qwen3_8b_4bit", 512, 256), tmp_path).plugins == ["memory_log"]


def test_the_highest_of_each_phase_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "memory.jsonl"
    write_jsonl(log, [_line("backward", 1, 500), _line("backward", 2, 700), _line("load", 0, 100)])
    assert peaks_by_phase(read_log(log)) == {
        "backward": Peak(allocated=700, reserved=701, managed=7),
        "load": Peak(allocated=100, reserved=101, managed=7),
    }


def test_a_training_without_a_log_has_no_peaks(tmp_path: Path) -> None:
    assert read_log(tmp_path / "memory.jsonl") == []


def test_wheels_that_are_not_there_end_the_command_with_pips_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    assert main(["--wheels", str(wheels), "--work", str(tmp_path), "--cpu"]) != 0
    assert "palmswift" in capfd.readouterr().err


def _line(phase: str, step: int, peak: int) -> dict[str, Any]:
    line = LogLine(
        phase=phase,
        step=step,
        allocated=peak // 2,
        reserved=peak // 2,
        max_allocated=peak,
        max_reserved=peak + 1,
        managed=7,
        device="cuda:0",
    )
    document: dict[str, Any] = json.loads(line.model_dump_json())
    return document


def _record(predicted: int, allocated: int, reserved: int) -> Record:
    case = Measured(
        recipe="r",
        changes=[],
        length=1024,
        supervised=512,
        cap_mib=None,
        outcome="finished",
        device="cuda:0",
        phases={
            "load": Peak(allocated=9**9, reserved=9**9, managed=0),
            "backward": Peak(allocated=allocated, reserved=reserved, managed=0),
        },
        predicted_bytes=predicted,
        error=None,
        tokens_per_s=None,
    )
    return Record(
        date="2026-01-01",
        command="c",
        dry_run=False,
        size="8B",
        card="a card",
        cap_mib=None,
        versions={},
        cases=[case],
        longest_tokens=None,
        longest_recipe=None,
        published=[],
    )


def test_a_peak_that_was_not_foretold_is_found() -> None:
    assert beyond(_record(10_000, 10_100, 10_300)) == []
    assert beyond(_record(10_000, 10_400, 10_300)) != []
    assert beyond(_record(10_000, 10_100, 10_900)) != []


def test_the_planner_foretold_what_cards_have_shown() -> None:
    """Within 3 % of allocated and 5 % of reserved memory, in every record of a card so far."""
    records = Path(__file__).resolve().parents[3] / "benchmarks" / "records"
    for path in records.glob("memory-*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["benchmark"] == "memory":
            assert beyond(Record.model_validate(document)) == [], path.name
