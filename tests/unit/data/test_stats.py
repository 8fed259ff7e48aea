from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_data import CharacterJudge, pair, write_rows

from palmswift.data.languages import language_of
from palmswift.data.read import open_files
from palmswift.data.stats import DataStats, main, stats
from palmswift.recipes.recipe import DataSettings

RECIPE = ["--recipe", "qwen3_8b_4bit", "--model", "nowhere"]


def of(rows: list[object], folder: Path) -> DataStats:
    files = open_files([write_rows(folder / "rows.jsonl", rows)])
    return stats(files, "sft", DataSettings())


def test_rows_turns_characters_and_prompts_are_counted(tmp_path: Path) -> None:
    long = {"system": "客服", "query": "三", "response": "四", "history": [["一", "二"]]}
    found = of([pair("几点开门？", "八点。"), long, pair("空", "")], tmp_path)
    assert (found.read, found.usable, found.rejected) == (3, 2, {"blank_answer": 1})
    assert found.turns and (found.turns.min, found.turns.max) == (2, 4)
    assert found.characters and found.characters.total == 8 + 6
    assert found.answer_characters and found.answer_characters.total == 3 + 2
    assert (found.with_system, found.system_prompts) == (1, 1)
    assert found.tokens is None


def test_duplicates_and_repeated_questions_are_told_apart(tmp_path: Path) -> None:
    rows: list[object] = [pair("a", "b"), pair("a", "b"), pair("a", "c"), pair("d", "b")]
    found = of(rows, tmp_path)
    assert (found.duplicates, found.repeated_questions) == (1, 1)


def test_a_file_without_usable_rows_has_no_spreads_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert of([pair("a", "")], tmp_path).turns is None
    assert main([str(tmp_path / "rows.jsonl")]) == 1
    assert "none of the 1 rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["几点开门？", "早上八点 open。"], "Chinese"),
        (["When do you open?", "At eight."], "Latin"),
        (["请翻译", "good morning to you"], "Chinese + Latin"),
        (["東京はどこですか", "日本です"], "Japanese"),
        (["안녕하세요"], "Korean"),
        (["Когда вы открываетесь?"], "Cyrillic"),
        (["1 + 1 = 2"], "none"),
        ([], "none"),
    ],
)
def test_languages_are_told_by_their_script(texts: list[str], language: str) -> None:
    assert language_of(texts) == language


def test_tokens_are_the_templates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("palmswift.data.stats.TemplateJudge", CharacterJudge)
    rows = [pair("ab", "cd"), pair("abc", "d"), pair("x", "y" * 500)]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    assert main([str(source), *RECIPE, "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert (tokens["tokens"]["total"], tokens["supervised"]["total"]) == (8, 3)
    assert tokens["supervised_share"] == 0.375
    assert tokens["rejected"] == {"over_length": 1}


def test_the_tables_tell_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("palmswift.data.stats.TemplateJudge", CharacterJudge)
    rows = [pair("几点开门？", "八点。"), pair("x", ""), pair("q", "y" * 500)]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    assert main([str(source), *RECIPE]) == 0
    told = capsys.readouterr().out
    for words in ("2 of 3", "query_response 2", "Chinese 1", "blank_answer", "over_length", "p99"):
        assert words in told


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--set", "swift.max_length=5"], "--recipe"),
        ([*RECIPE, "--task", "dpo"], "kind sft"),
        (["--columns", "a=b"], "data.columns.a"),
    ],
)
def test_a_wrong_call_is_told(
    flags: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [pair("a", "b")])
    assert main([str(source), *flags]) == 2
    assert told in capsys.readouterr().err
