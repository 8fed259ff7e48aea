"""A failed child's log becomes a cause and a remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.launchers.diagnosis import TAIL_BYTES, diagnose, log_tail, signal_of
from palmswift.launchers.failures import ENDED_BY_SIGNAL, FAILURES

LOGS = Path(__file__).parents[2] / "data" / "training_logs"
MANIFEST: dict[str, dict[str, Any]] = json.loads((LOGS / "manifest.json").read_text("utf-8"))
FAILED = sorted(name for name, entry in MANIFEST.items() if entry["exit_code"] != 0)


@pytest.mark.parametrize("name", FAILED)
def test_a_real_log_is_told_as_what_it_is(name: str) -> None:
    entry = MANIFEST[name]
    found = diagnose(LOGS / f"{name}.log", entry["exit_code"])
    assert (found.kind, found.phase) == (entry["kind"], entry["phase"]), found
    assert found.cause
    assert "\n" not in found.cause + found.remedy
    assert not re.search(r"[{}]\w+[{}]|\(\)|: *$", found.cause), found.cause


def test_every_class_has_a_real_log_that_says_where_it_comes_from() -> None:
    shown = {entry["kind"] for entry in MANIFEST.values()}
    by_signal = {kind for kind, _, _ in ENDED_BY_SIGNAL.values()} - {"aborted"}
    known = {failure.kind for failure in FAILURES} | {"out_of_memory", "gpu_in_use"} | by_signal
    assert known <= shown, f"without a log: {sorted(known - shown)}"
    assert len(known) >= 35
    assert all(entry["source"] for entry in MANIFEST.values())
    assert {file.stem for file in LOGS.glob("*.log")} == set(MANIFEST)


@pytest.mark.parametrize(
    ("code", "number"),
    [(-9, 9), (137, 9), (247, 9), (143, 15), (241, 15), (1, 0), (0, 0), (255, 1)],
)
def test_a_signal_is_read_from_every_form_of_exit_code(code: int, number: int) -> None:
    assert signal_of(code) == number


def test_a_kill_for_want_of_memory_is_told_by_the_system_s_counter(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Train:   3%|\n")
    assert diagnose(log, 247).kind == "killed"
    assert diagnose(log, 247, oom_kills=0).kind == "killed"
    assert diagnose(log, 247, oom_kills=1).kind == "host_memory"
    assert diagnose(LOGS / "worker_killed.log", 1, oom_kills=1).kind == "host_memory"
    assert diagnose(LOGS / "broken_data.log", 1, oom_kills=1).kind == "broken_data"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB", "out_of_memory"),
        ("ValueError: remaining_argv: ['--lora_rnk', '16']", "unknown_argument"),
        ("OSError: [Errno 28] No space left on device", "disk_full"),
        ("ValueError: Your setup doesn't support bf16/gpu.", "no_bf16"),
        ("RuntimeError: bitsandbytes was not compiled with CUDA support", "bitsandbytes"),
        ("ModuleNotFoundError: No module named 'liger_kernel'", "missing_package"),
        ("safetensors.SafetensorError: Error while deserializing header", "broken_model"),
        ("ConnectionError: Max retries exceeded with url: /api/v1/models", "network"),
        ("OSError: [Errno 98] Address already in use", "port_taken"),
        (
            "ValueError: args.max_steps must be set to a positive value if dataloader does not "
            "have a length, was -1",
            "no_steps",
        ),
        (
            "ValueError: num_samples should be a positive integer value, but got num_samples=0",
            "no_rows",
        ),
    ],
)
def test_known_failures_have_a_remedy(tmp_path: Path, line: str, kind: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"[INFO:swift] begun\nTraceback (most recent call last):\n{line}\n")
    found = diagnose(log, 1)
    assert found.kind == kind
    assert found.remedy


def test_the_particular_is_told_before_the_general(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("ZeroDivisionError: division by zero\ntorch.OutOfMemoryError: CUDA\n")
    assert diagnose(log, 1).kind == "out_of_memory"


def test_an_earlier_attempts_failure_explains_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("torch.OutOfMemoryError: CUDA out of memory\n")
    start = log.stat().st_size
    with log.open("a") as stream:
        stream.write("RuntimeError: something else\n")
    assert diagnose(log, 1, start=start).cause == "RuntimeError: something else"
    assert diagnose(log, -9, start=log.stat().st_size).kind == "killed"


def test_a_progress_bar_shows_as_its_last_state(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"begun\nTrain:  1%\rTrain: 50%\rTrain: 99%\nended\n\n")
    assert log_tail(log) == ["begun", "Train: 99%", "ended"]
    assert log_tail(log, 1) == ["ended"]


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    error = "torch.OutOfMemoryError: CUDA out of memory\n"
    log.write_text(error + "x" * 99 + "\n" + ("y" * 99 + "\n") * (TAIL_BYTES // 100))
    assert diagnose(log, 1).kind == "unknown"


def test_no_log_is_no_reason_to_fail(tmp_path: Path) -> None:
    assert diagnose(tmp_path / "gone", 1).cause == "no output"
    assert log_tail(tmp_path / "gone") == []


@given(data=st.binary(max_size=400), code=st.integers(-64, 255))
def test_any_bytes_have_a_diagnosis_of_bounded_length(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, code: int
) -> None:
    log = tmp_path_factory.getbasetemp() / "any.log"
    log.write_bytes(data)
    found = diagnose(log, code)
    assert found.cause
    assert len(found.cause) <= 300


@pytest.mark.parametrize("name", ["bad_flag", "broken_data", "reward_raised", "no_cuda"])
def test_a_row_that_tells_of_an_error_hides_no_real_one(tmp_path: Path, name: str) -> None:
    row = (LOGS / "killed_after_a_row_of_an_error.log").read_text("utf-8")
    assert "torch.OutOfMemoryError: CUDA out of memory" in row
    log = tmp_path / "log"
    log.write_text(row + (LOGS / f"{name}.log").read_text("utf-8"), "utf-8")
    assert diagnose(log, 1).kind == MANIFEST[name]["kind"]
