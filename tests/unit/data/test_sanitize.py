from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_data import count_characters, pair, read_rows, write_rows

from palmswift.data.sanitize import main

RECIPE = ["--recipe", "qwen3_8b_4bit"]


@pytest.fixture(autouse=True)
def characters_are_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """ms-swift, whose import takes half a minute, is asked in tests/integration."""
    monkeypatch.setattr("palmswift.data.gate.judge", count_characters)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "data.jsonl", [pair(f"q{n}", "a") for n in range(10)])


def test_the_command_writes_rows_and_report_and_prints_the_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clean"
    assert main([str(data), *RECIPE, "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "rejected.jsonl",
        "report.html",
        "report.json",
        "train.jsonl",
        "val.jsonl",
    ]
    assert "data.jsonl" in capsys.readouterr().out


def test_json_is_one_document_on_stdout(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(data), *RECIPE, "--out", str(tmp_path / "clean"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["read"] == document["kept"] + document["rejected"] == 10


def test_columns_of_any_name_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("顾客说,店员说\n几点,八点\n周一呢,休息\n", encoding="gb18030")
    out = tmp_path / "clean"
    arguments = [str(path), *RECIPE, "--out", str(out), "--columns"]
    assert main([*arguments, "query=顾客说,response=店员说"]) == 0
    kept = read_rows(out / "train.jsonl") + read_rows(out / "val.jsonl")
    assert {row["messages"][1]["content"] for row in kept} == {"八点", "休息"}


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (None, 2, "no such file"),
        (b"", 2, "empty"),
        (b"\x00\x01\x02\x03" * 99, 2, "binary"),
        (b"PK\x03\x04", 2, "Excel"),
        (b"query,response\n", 2, "no rows"),
        (b"query,response\nq,\n", 1, "blank_answer"),
        (b"a,b\n1,2\n", 1, "unknown_shape"),
    ],
)
def test_unusable_input_ends_with_one_message_and_nothing_half_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    code: int,
    told: str,
) -> None:
    path, out = tmp_path / "my.csv", tmp_path / "clean"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), *RECIPE, "--out", str(out)]) == code
    said = capsys.readouterr()
    assert told in said.err and "Traceback" not in said.err
    assert said.out == ""
    if code == 2:
        assert not out.exists()
    else:
        assert not (out / "train.jsonl").exists()
        assert (out / "rejected.jsonl").exists() and (out / "report.html").exists()


@pytest.mark.parametrize("columns", ["query", "=x", "query="])
def test_columns_that_cannot_be_read_are_refused(
    data: Path, tmp_path: Path, columns: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(data), *RECIPE, "--out", str(tmp_path / "c"), "--columns", columns]
    assert main(arguments) == 2
    assert "--columns" in capsys.readouterr().err
