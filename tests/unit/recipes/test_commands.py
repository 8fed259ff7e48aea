from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_recipes import WHOLE, write_recipe

from palmswift.recipes.commands import main
from palmswift.recipes.load import load_checked
from palmswift.recipes.source import recipe_names


def test_list_names_every_recipe_and_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in recipe_names())
    assert "8188 MiB GPU" in printed


def test_show_prints_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "qwen3_8b_4bit", "--set", "swift.lora_rank=32", "--json"]) == 0
    recipe = json.loads(capsys.readouterr().out)["recipe"]
    assert recipe["swift"]["lora_rank"] == 32
    assert recipe["swift"]["use_liger_kernel"] is True


def test_check_without_files_checks_all_that_are_shipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out.count(": ok") == len(recipe_names())


def test_check_tells_the_problems_of_all_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_recipe(tmp_path, WHOLE.replace("lora_rank", "lora_rnk"), "first")
    second = write_recipe(tmp_path, "name: [", "second")
    assert main(["check", first, second, "nowhere", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    places = [problem["where"] for problem in error["problems"]]
    assert places == [f"{first}:14", f"{second}:1", "nowhere"]


def test_a_copied_recipe_has_its_own_name_and_checks(tmp_path: Path) -> None:
    target = tmp_path / "clinic.yaml"
    assert main(["copy", "qwen3_8b_4bit", str(target)]) == 0
    assert load_checked(str(target)).recipe.name == "clinic"


def test_a_copy_never_overwrites(tmp_path: Path) -> None:
    target = tmp_path / "clinic.yaml"
    target.write_text("mine", encoding="utf-8")
    assert main(["copy", "qwen3_8b_4bit", str(target)]) == 2
    assert target.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("words", [[], ["dance"], ["show"], ["show", "nothing"], ["list", "--x"]])
def test_wrong_words_are_answered_without_a_traceback(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")
