"""The end of a log becomes one line of cause and one of remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from palmswift.deploy.explain import explain, server_error

LINES = {
    "port_taken": "[Errno 98] error while attempting to bind: address already in use",
    "out_of_memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
    "memory_taken": "ValueError: Available memory on node 0 (18.43/23.54 GiB) on startup is less "
    "than desired CPU memory utilization (0.92, 21.66 GiB). On the CPU backend, the flag",
    "context_too_long": "the model's max seq len (40960) is larger than the maximum number of "
    "tokens that can be stored in KV cache (8192)",
    "adapter_mismatch": "RuntimeError: size mismatch for base_model.model.lm_head.lora_A.weight",
    "broken_model": "OSError: /m does not appear to have a file named config.json",
    "ambiguous_type": "ValueError: Failed to automatically match `model_type` for `/m`. "
    "Multiple possible types found: ['qwen3', 'qwen3_emb']",
    "unknown_argument": "ValueError: remaining_argv: ['--check_model', 'false']",
    "missing_backend": "ModuleNotFoundError: No module named 'vllm'",
    "missing_package": "ModuleNotFoundError: No module named 'msgspec'",
}


@pytest.mark.parametrize("kind", LINES)
def test_a_known_failure_is_named_with_a_remedy(tmp_path: Path, kind: str) -> None:
    log = tmp_path / "8000.log"
    log.write_text(f"[INFO:swift] starting\n{LINES[kind]}\n")
    found = explain(log, 1)
    assert found.kind == kind
    assert found.remedy


def test_swifts_own_source_in_a_traceback_names_no_failure(tmp_path: Path) -> None:
    log = tmp_path / "8000.log"
    log.write_text("    args, remaining_argv = parse_args(cls, args)\nValueError: no such thing\n")
    assert explain(log, 1).cause == "ValueError: no such thing"


def test_an_error_shows_the_last_lines_and_where_the_rest_is(tmp_path: Path) -> None:
    log = tmp_path / "8000.log"
    log.write_text("one\ntwo\nValueError: three\n")
    told = str(server_error("the server ended", log, 1))
    assert "ValueError: three" in told
    assert str(log) in told


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"\r\r\r"])
def test_a_log_without_words_is_still_an_error_in_words(
    tmp_path: Path, content: bytes | None
) -> None:
    log = tmp_path / "8000.log"
    if content is not None:
        log.write_bytes(content)
    assert "the server ended" in str(server_error("the server ended", log, -9))
