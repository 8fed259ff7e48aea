from __future__ import annotations

from pathlib import Path

import pytest
from support_recipes import WHOLE, problem_about, problems_of, write_recipe

from palmswift.errors import InputError
from palmswift.recipes.load import load_checked
from palmswift.recipes.source import find_recipe, read_recipe


def test_an_unknown_name_is_answered_with_the_nearest_and_the_way_to_list_them() -> None:
    with pytest.raises(InputError) as caught:
        find_recipe("qwen3_8b_4bt")
    assert "qwen3_8b_4bit" in caught.value.remedy
    assert "palmswift recipes list" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["", "nowhere/x.yaml", "x.yaml", "..", "recipes", "a\x00b", "x" * 300]
)
def test_a_name_that_is_no_recipe_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError):
        read_recipe(name)


def test_broken_yaml_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "name: x\nsummary: y\nswift: {a: 1\n")
    with pytest.raises(InputError) as caught:
        load_checked(path)
    (problem,) = caught.value.problems
    assert problem.where == f"{path}:4"


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"- 1\n", "not a map"), (b"\xff\xfe", "UTF-8")]
)
def test_a_file_that_is_no_recipe_is_told(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=word):
        load_checked(str(path))


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert load_checked(str(path)).recipe.name == "mine"


def test_maps_merge_lists_replace_and_null_removes(tmp_path: Path) -> None:
    own, _, swift = WHOLE.partition("swift:\n")
    write_recipe(
        tmp_path / "bases",
        "swift:\n  lora_dropout: 0.1\n  report_to: [a, b]\n  lora_alpha: 8\nenv: {A: '1'}\n",
        "under",
    )
    text = own + "base: under\nswift:\n  report_to: [c]\n  lora_alpha: null\n" + swift
    recipe = load_checked(write_recipe(tmp_path, text)).recipe
    assert recipe.swift["lora_dropout"] == 0.1
    assert recipe.swift["report_to"] == ["c"]
    assert "lora_alpha" not in recipe.swift
    assert recipe.env == {"A": "1"}


def test_a_base_of_a_base_is_refused(tmp_path: Path) -> None:
    write_recipe(tmp_path / "bases", "base: other\n", "under")
    path = write_recipe(tmp_path, WHOLE + "base: under\n")
    problem = problem_about("under is a base", problems_of(path))
    assert problem.where == f"{tmp_path}/bases/under.yaml:1"


@pytest.mark.parametrize("base", ["cpu_dem", "../cpu_demo", "/etc/passwd"])
def test_a_base_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, base: str) -> None:
    path = write_recipe(tmp_path, WHOLE + f"base: {base}\n")
    problem = problem_about("no base", problems_of(path))
    assert "cpu_demo" in problem.remedy
    assert problem.where.startswith(f"{path}:")


def test_set_overrides_any_key_with_a_yaml_value(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    recipe = load_checked(
        path,
        [
            "swift.learning_rate=1e-4",
            "data.train=[a.jsonl]",
            "model.revision=main",
            "export.merge=true",
        ],
    ).recipe
    assert recipe.swift["learning_rate"] == 1e-4
    assert recipe.data.train == ["a.jsonl"]
    assert recipe.model.revision == "main"
    assert recipe.export.merge is True


def test_set_to_null_takes_a_key_away(tmp_path: Path) -> None:
    assert (
        "lora_rank"
        not in load_checked(write_recipe(tmp_path), ["swift.lora_rank=null"]).recipe.swift
    )


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("swift.lora_rank", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("swift..x=3", "KEY=VALUE"),
        ("swift.lora_rank=", "no value"),
        ("data.trian=x", "did you mean train"),
        ("modle.id=x", "did you mean model"),
        ("name.x=3", "not a map"),
        ("swift.lora_rank.x=3", "not a map"),
        ("swift.lora_rank=[1", "broken YAML"),
        ("swift.lora_rnk=8", "not an argument"),
    ],
)
def test_a_bad_override_is_told_and_shown(tmp_path: Path, override: str, word: str) -> None:
    problems = problems_of(write_recipe(tmp_path), override)
    assert [p for p in problems if word in p.what and f"--set {override}" in p.where], problems


def test_all_bad_overrides_are_told_together(tmp_path: Path) -> None:
    assert len(problems_of(write_recipe(tmp_path), "foo", "data.x=1", "swift.lora_rank=abc")) == 3
