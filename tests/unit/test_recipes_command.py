from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_recipes import WHOLE, write_recipe

from palmswift.recipes.load import load_checked
from palmswift.recipes.source import recipe_names
from palmswift.recipes.yaml_text import parse
from palmswift.recipes_command import main


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


def test_show_says_how_the_result_is_served_on_the_same_card_and_stays_a_recipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["show", "qwen3_8b_4bit"]) == 0
    printed = capsys.readouterr().out
    assert (
        "# its result served on the same card (predicted):\n#   swift deploy, bnb-4bit" in printed
    )
    assert parse(printed, "shown").value["name"] == "qwen3_8b_4bit"
    assert main(["show", "demo_cpu"]) == 0
    assert "served on" not in capsys.readouterr().out


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


def test_diff_tells_each_key_that_differs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "qwen3_8b_4bit", "qwen3_4b_4bit"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "model.id: Qwen/Qwen3-8B -> Qwen/Qwen3-4B" in printed
    assert "swift.max_length: 1024 -> 2048" in printed
    assert not [line for line in printed if "lora_rank" in line]


def test_a_key_of_one_recipe_alone_is_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_recipe(tmp_path, WHOLE)
    second = write_recipe(tmp_path, WHOLE.replace("lora_rank: 16", "packing: false"), "other")
    assert main(["diff", first, second, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["differences"]
    assert found == [
        {"key": "swift.lora_rank", "first": 16, "second": None},
        {"key": "swift.packing", "first": None, "second": False},
    ]


def test_a_recipe_is_the_same_as_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "demo_cpu", "demo_cpu"]) == 0
    assert capsys.readouterr().out == "they say the same\n"


def test_an_imported_script_is_a_recipe_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "my train.sh"
    script.write_text("swift sft --model Qwen/Qwen3-8B --dataset a.jsonl --train_type lora")
    target = tmp_path / "mine.yaml"
    assert main(["import", str(script), str(target), "--gpu-mib", "12288"]) == 0
    printed = capsys.readouterr()
    assert "train_type is called tuner_type" in printed.err
    recipe = load_checked(str(target)).recipe
    assert (recipe.name, recipe.budget.gpu_mib) == ("mine", 12288)
    assert main(["import", str(script), str(target)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_an_import_with_something_to_mend_is_written_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "train.sh"
    script.write_text("swift sft --model Qwen/Qwen3-8B --dataset a.jsonl --packing true")
    target = tmp_path / "mine.yaml"
    assert main(["import", str(script), str(target), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "flash attention" in error["problems"][0]["what"]
    assert target.is_file()


def test_one_command_of_several_can_be_taken(tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text(
        "swift sft --model a/b --dataset a.jsonl --max_length 8\n"
        "swift pt --model a/b --dataset a.txt --max_length 9\n"
    )
    assert main(["import", str(script), str(tmp_path / "two.yaml"), "--take", "2"]) == 0
    assert load_checked(str(tmp_path / "two.yaml")).recipe.task == "pt"
    assert main(["import", str(script), str(tmp_path / "x.yaml"), "--take", "3"]) == 2


@pytest.mark.parametrize(
    "words", [["no-such.sh"], ["--define", "x", "a.sh"], ["."], [__file__, "--take", "1"]]
)
def test_what_is_no_script_is_refused_without_a_traceback(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.sh").touch()
    assert main(["import", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("form", ["sh", "swift-yaml"])
def test_an_export_is_printed_or_written(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "qwen3_8b_4bit", "--to", form]) == 0
    printed = capsys.readouterr().out
    target = tmp_path / "train"
    assert main(["export", "qwen3_8b_4bit", str(target), "--to", form]) == 0
    assert target.read_text(encoding="utf-8").strip() == printed.strip()
    assert main(["export", "qwen3_8b_4bit", str(target), "--to", form]) == 2


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_exported_is_imported_as_the_same_training(tmp_path: Path, name: str) -> None:
    script, copy = tmp_path / "a.sh", tmp_path / "a.yaml"
    assert main(["export", name, str(script), "--to", "sh"]) == 0
    assert main(["import", str(script), str(copy)]) == 0
    first, second = load_checked(name).recipe, load_checked(str(copy)).recipe
    assert first.swift == second.swift
    assert (first.task, first.data.system) == (second.task, second.data.system)
    assert (first.teacher and first.teacher.id) == (second.teacher and second.teacher.id)


def test_a_script_may_keep_its_arguments_in_ms_swifts_own_yaml(tmp_path: Path) -> None:
    assert main(["export", "qwen3_8b_4bit", str(tmp_path / "a.yaml"), "--to", "swift-yaml"]) == 0
    script, copy = tmp_path / "a.sh", tmp_path / "b.yaml"
    script.write_text("swift sft a.yaml --lora_rank 4")
    assert main(["import", str(script), str(copy)]) == 0
    first, second = load_checked("qwen3_8b_4bit").recipe, load_checked(str(copy)).recipe
    assert second.swift == {**first.swift, "lora_rank": 4}
    assert second.env.items() >= first.env.items()
    script.write_text("swift sft other.yaml --model a")
    assert main(["import", str(script), str(tmp_path / "c.yaml")]) == 2
