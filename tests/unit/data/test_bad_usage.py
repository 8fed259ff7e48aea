"""Every data command, called wrongly: an exit code, one message, and nothing written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support_data import CharacterJudge, pair, write_rows

from palmswift.data import convert, preview, sanitize, stats

RECIPE = ("--recipe", "qwen3_8b_4bit", "--model", "nowhere")
COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], tuple[str, ...]]] = {
    "sanitize": (sanitize.main, (*RECIPE, "--out", "out")),
    "preview": (preview.main, (*RECIPE, "--html", "out.html")),
    "stats": (stats.main, RECIPE),
    "stats without a recipe": (stats.main, ()),
    "convert": (convert.main, ("--to", "alpaca", "--out", "out.json")),
}

every_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are called; ms-swift, whose import takes half a minute, is not asked."""
    for module in ("gate", "preview", "stats"):
        monkeypatch.setattr(f"palmswift.data.{module}.TemplateJudge", CharacterJudge)
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "good.jsonl", [pair(f"q{n}", "a") for n in range(3)])
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@every_command
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"\x00\x01\x02\x03" * 99, "binary"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x1f\x8b\x08broken", "archive is broken"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_and_nothing_is_written(
    command: str,
    data: bytes | None,
    told: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if data is not None:
        (folder / "bad.jsonl").write_bytes(data)
    before = contents(folder)
    main, flags = COMMANDS[command]
    assert main(["bad.jsonl", *flags]) == 2
    said = capsys.readouterr()
    assert said.err.count("error:") == 1 and "bad.jsonl" in said.err and told in said.err
    assert said.out == ""
    assert contents(folder) == before


@every_command
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--rule", "no_such=keep"), "no such check"),
        (("--rule", "blank_answer=keep"), "one of reject"),
        (("--columns", "nothing=a"), "data.columns.nothing"),
        (("--columns", "query"), "NAME=VALUE"),
    ],
)
def test_a_rule_or_a_column_that_does_not_exist_is_told_and_nothing_is_written(
    command: str,
    flags: tuple[str, str],
    told: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(folder)
    main, others = COMMANDS[command]
    assert main(["good.jsonl", *others, *flags]) == 2
    said = capsys.readouterr()
    assert said.err.count("error:") == 1 and told in said.err
    assert said.out == ""
    assert contents(folder) == before


@pytest.mark.parametrize("command", ["sanitize", "stats", "stats without a recipe", "convert"])
def test_where_every_row_is_rejected_the_reasons_are_told(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(folder / "bad.jsonl", [pair("q", ""), pair("r", None)])
    main, flags = COMMANDS[command]
    assert main(["bad.jsonl", *flags]) == 1
    told = capsys.readouterr().err
    assert told.count("error:") == 1 and "none of the 2" in told
    assert "blank_answer" in told and "no_answer" in told
    assert not (folder / "out" / "train.jsonl").exists()
    assert not (folder / "out.json").exists()


def test_a_preview_of_rows_that_are_all_rejected_shows_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(folder / "bad.jsonl", [pair("q", ""), pair("r", None)])
    assert preview.main(["bad.jsonl", *RECIPE]) == 0
    told = capsys.readouterr().out
    assert "blank_answer" in told and "no_answer" in told


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ("good.jsonl", "overwrite"),
        ("folder.json", "a folder stands there"),
        ("good.jsonl/deep/out.json", "is a file"),
    ],
)
@pytest.mark.parametrize(
    "words", [("preview", "--html"), ("convert", "--out")], ids=["preview", "convert"]
)
def test_a_result_that_cannot_be_written_or_is_the_input_is_told_at_once(
    words: tuple[str, str],
    result: str,
    told: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, flag = words
    (folder / "folder.json").mkdir()
    before = contents(folder)
    main, flags = COMMANDS[command]
    assert main(["good.jsonl", *flags, flag, result]) == 2
    said = capsys.readouterr()
    assert said.err.count("error:") == 1 and told in said.err
    assert "half a minute" not in said.err
    assert contents(folder) == before
