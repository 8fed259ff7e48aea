from __future__ import annotations

from typing import Any

import pytest
from support_report import builder_of, report_of

from palmswift.data.policy import Policy
from palmswift.data.report import ConflictReport, DataReport, NearReport, Suggestion, UnreadColumns
from palmswift.data.row import Place, Rejection
from palmswift.data.suggest import guess_columns, suggestions, with_suggestions
from palmswift.recipes.load import load_checked
from palmswift.recipes.recipe import Recipe


@pytest.fixture(scope="module")
def gpu_recipe() -> Recipe:
    return load_checked("qwen3_8b_4bit").recipe


def found(report: DataReport, recipe: Recipe | None = None) -> dict[str, Suggestion]:
    """By code; each can be followed, and speaks both languages."""
    result = suggestions(report, recipe)
    for suggestion in result:
        assert suggestion.en.strip() and suggestion.zh.strip()
        assert not {"一", "行", "的"} & set(suggestion.en)
        words = suggestion.flags
        assert len(words) % 2 == 0
        for flag, value in zip(words[::2], words[1::2], strict=True):
            assert flag in ("--columns", "--rule", "--set")
            if flag == "--rule":
                Policy(dict([value.split("=")]))
            if flag == "--set":
                load_checked("qwen3_8b_4bit", [value])
    return {suggestion.code: suggestion for suggestion in result}


GOOD = [100] * 400
"""Lengths of rows that nothing is to be said about, with 20 or more of them held out."""


def test_nothing_is_suggested_where_nothing_is_amiss(gpu_recipe: Recipe) -> None:
    assert found(report_of(tokens=GOOD, val_rows=20), gpu_recipe) == {}


def test_rows_over_max_length_ask_for_a_longer_one_where_the_card_has_room(
    gpu_recipe: Recipe,
) -> None:
    report = report_of(tokens=GOOD, val_rows=20, over_length=[700, 800, 900])
    suggestion = found(report, gpu_recipe)["over_length"]
    assert suggestion.flags == ["--set", "swift.max_length=960"]
    assert "GB" in suggestion.en and "GB" in suggestion.zh


def test_rows_far_over_max_length_ask_for_a_split(gpu_recipe: Recipe) -> None:
    report = report_of(tokens=GOOD, val_rows=20, over_length=[120_000] * 3)
    assert found(report, gpu_recipe)["over_length"].flags == ["--rule", "over_length=split"]


def test_without_a_recipe_for_a_gpu_no_memory_is_spoken_of() -> None:
    report = report_of(tokens=[*GOOD, 640], val_rows=20, over_length=[700])
    assert "GB" not in found(report)["over_length"].en
    cpu = load_checked("demo_cpu_lora").recipe
    assert "max_length" not in found(report_of(tokens=[*GOOD, 600], val_rows=20), cpu)


def test_a_few_long_rows_that_cost_memory_are_named_with_what_they_cost(
    gpu_recipe: Recipe,
) -> None:
    report = report_of(tokens=[*GOOD, 1500, 1600], val_rows=20, max_length=2048)
    suggestion = found(report, gpu_recipe)["max_length"]
    assert suggestion.flags == ["--set", "swift.max_length=128"]
    assert "99 %" in suggestion.en and "GB" in suggestion.en


def test_rows_nearly_as_long_as_each_other_are_left_alone(gpu_recipe: Recipe) -> None:
    report = report_of(tokens=[*GOOD, 120, 128], val_rows=20)
    assert "max_length" not in found(report, gpu_recipe)


@pytest.mark.parametrize(
    ("code", "flags"),
    [
        ("two_turns_in_a_row", ["--rule", "two_turns_in_a_row=merge"]),
        ("first_turn_not_user", ["--rule", "first_turn_not_user=drop"]),
    ],
)
def test_rows_left_out_that_could_be_repaired_are_named(code: str, flags: list[str]) -> None:
    report = report_of(tokens=GOOD, val_rows=20, rejected=[code])
    assert found(report)[code].flags == flags
    assert code not in found(report_of(tokens=GOOD, val_rows=20, rejected=["no_answer"]))


def test_private_data_of_all_kinds_is_one_suggestion_and_comes_early() -> None:
    report = report_of(tokens=GOOD, val_rows=20, findings=["boilerplate", "phone_number", "email"])
    suggestion = found(report)["private"]
    assert sorted(suggestion.flags[1::2]) == ["email=mask", "phone_number=mask"]
    assert list(found(report)) == ["private", "boilerplate"]


@pytest.mark.parametrize("code", ["mojibake", "boilerplate", "spaced_chinese", "unusual_length"])
def test_doubtful_rows_that_were_kept_are_named(code: str) -> None:
    assert code in found(report_of(tokens=GOOD, val_rows=20, findings=[code]))


def test_a_validation_set_that_leaks_is_named() -> None:
    report = report_of(tokens=GOOD, val_rows=20, findings=["near_in_train"])
    assert found(report)["near_in_train"].flags == ["--rule", "near_in_train=reject"]


@pytest.mark.parametrize(("code", "count"), [("near_duplicate", 25), ("conflicting_answers", 3)])
def test_what_is_found_between_rows_is_named_unless_it_is_rejected_already(
    code: str, count: int
) -> None:
    update: dict[str, Any] = {
        "near_duplicates": NearReport(clusters=14, rows=39, largest=6, examples=[]),
        "conflicts": ConflictReport(questions=3, rows=9, examples=[]),
    }
    report = report_of(tokens=GOOD, val_rows=20).model_copy(update=update)
    assert f"{count} " in found(report)[code].en
    strict = report_of(tokens=GOOD, val_rows=20, rules={code: "reject"}).model_copy(update=update)
    assert code not in found(strict)


def test_a_validation_set_that_is_too_small_is_named_with_a_ratio_that_is_not() -> None:
    suggestion = found(report_of(tokens=GOOD, val_rows=4))["validation"]
    assert suggestion.flags == ["--set", "data.val_ratio=0.05"]
    assert "validation" in found(report_of(tokens=GOOD, val_rows=0))
    # with so few rows no ratio helps
    assert "validation" not in found(report_of(tokens=[5] * 60, val_rows=3))


def test_a_handful_of_rows_is_said_to_be_few() -> None:
    assert "few_rows" in found(report_of(tokens=[5] * 20, val_rows=2))
    assert "few_rows" not in found(report_of(tokens=[5] * 100, val_rows=20))


@pytest.mark.parametrize(
    ("characters", "guess"),
    [
        ({"编号": 0, "提问": 8, "回复内容": 30}, {"query": "提问", "response": "回复内容"}),
        ({"客户": 9, "客服": 30}, {"query": "客户", "response": "客服"}),
        ({"Frage": 20, "Antwort": 60}, {"query": "Frage", "response": "Antwort"}),
        ({"q1": 20, "a1": 5, "age": 3}, {"query": "q1", "response": "a1"}),
        (
            {"系统设定": 9, "用户说": 9, "助手": 40},
            {"query": "用户说", "response": "助手", "system": "系统设定"},
        ),
        ({"note": 40}, {}),
        ({"a,b": 10, "c": 20}, {}),  # a flag could not name it
        ({}, {}),
    ],
)
def test_columns_are_guessed_by_name_then_by_length(
    characters: dict[str, float], guess: dict[str, str]
) -> None:
    unread = UnreadColumns(columns=list(characters), count=3, characters=characters)
    assert guess_columns(unread) == guess


def test_unread_columns_come_first_and_are_named_even_without_a_guess() -> None:
    builder = builder_of("f.csv")
    for number, row in enumerate(({"提问": "几点？", "回复": "九点。"}, {"note": "x"}), 1):
        place = Place("f.csv", number, number)
        builder.rejected(Rejection(place, "unknown_shape", "", row))
    first, second = suggestions(builder.finish())
    assert first.flags == ["--columns", "query=提问,response=回复"]
    assert second.flags == [] and "note" in second.en


def test_the_report_carries_its_suggestions() -> None:
    report = report_of(tokens=[5] * 20, val_rows=2)
    assert with_suggestions(report).suggestions == suggestions(report)
