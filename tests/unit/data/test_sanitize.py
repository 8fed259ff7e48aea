from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support_data import CharacterJudge, pair, read_rows, write_rows

from palmswift.data.sanitize import main

RECIPE = ["--recipe", "qwen3_8b_4bit"]


@pytest.fixture(autouse=True)
def characters_are_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """ms-swift, whose import takes half a minute, is asked in tests/integration."""
    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", CharacterJudge)


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
        (b"PK\x03\x04", 2, "zip archive"),
        (b"query,response\n", 2, "no rows"),
        (b"query,response\nq,\n", 1, "blank_answer"),
        (b"x,y\n1,2\n", 1, "unknown_shape"),
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


def test_a_rule_on_the_command_line_goes_over_the_recipe(data: Path, tmp_path: Path) -> None:
    row = json.loads(data.read_text(encoding="utf-8").split("\n")[0])
    write_rows(data, [*read_rows(data), row])
    out = tmp_path / "clean"
    arguments = [str(data), *RECIPE, "--out", str(out), "--set", "data.val_ratio=0"]
    assert main(arguments) == 0
    assert len(read_rows(out / "train.jsonl")) == 10
    assert main([*arguments, "--rule", "duplicate=keep"]) == 0
    assert len(read_rows(out / "train.jsonl")) == 11


@pytest.mark.parametrize("rule", ["duplicate", "duplicates=keep", "duplicate=mask"])
def test_a_rule_that_does_not_exist_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clean"
    assert main([str(data), *RECIPE, "--out", str(out), "--rule", rule]) == 2
    assert "duplicate" in capsys.readouterr().err
    assert not out.exists()


def test_folders_and_patterns_are_read_and_the_result_never_overwrites_its_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_rows(raw / "a.jsonl", [pair(f"q{n}", "a") for n in range(10)])
    write_rows(raw / "b.jsonl", [pair(f"p{n}", "a") for n in range(10)])
    out = tmp_path / "clean"
    assert main([str(raw), *RECIPE, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 20
    assert main([str(raw / "*.jsonl"), *RECIPE, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 20
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main([str(out / "[tv]*.jsonl"), *RECIPE, "--out", str(out)]) == 2
    assert "overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_all_that_is_wrong_with_the_files_is_told_at_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_bytes(b"")
    arguments = [str(tmp_path / "absent.json"), str(data), "--val", str(empty), *RECIPE]
    assert main([*arguments, "--out", str(tmp_path / "clean")]) == 2
    told = capsys.readouterr().err
    assert "absent.json" in told and "empty.csv" in told
    assert main([str(data), "--val", str(data), *RECIPE, "--out", str(tmp_path / "clean")]) == 2
    assert "given twice" in capsys.readouterr().err


def test_results_cannot_be_written_where_a_file_stands(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(data), *RECIPE, "--out", str(data / "out")]) == 2
    assert "a file stands there" in capsys.readouterr().err
    assert len(read_rows(data)) == 10


def test_a_file_that_breaks_off_leaves_no_folder(tmp_path: Path) -> None:
    rows = "".join(json.dumps(pair(f"question {n}", f"answer {n}")) + "\n" for n in range(5000))
    packed = gzip.compress(rows.encode("utf-8"))
    path = tmp_path / "my.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    assert main([str(path), *RECIPE, "--out", str(tmp_path / "new" / "clean")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["my.jsonl.gz"]


ASKING = """
import sys, time
from support_data import CharacterJudge
import palmswift.data.gate as gate
from palmswift.data.sanitize import main

class Asking(CharacterJudge):
    def finish(self, progress=None):
        print("asking", flush=True)
        time.sleep(600)

gate.TemplateJudge = Asking
raise SystemExit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_and_leaves_nothing(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ASKING, str(data), *RECIPE, "--out", str(tmp_path / "clean")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "asking\n"
        process.send_signal(number)
        told = process.stderr.read()
    assert (process.returncode, told.splitlines()[-1]) == (130, "interrupted")
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]
