from __future__ import annotations

import pytest

from palmswift.recipes.catalogue import (
    Flag,
    check_value,
    installed_version,
    load_catalogue,
    load_renames,
    nearest,
    shipped_versions,
)


def test_every_command_palmswift_renders_has_its_arguments() -> None:
    catalogue = load_catalogue()
    expected = {"sft", "pt", "rlhf", "infer", "export", "deploy", "eval", "sample", "merge-lora"}
    assert set(catalogue.commands) == expected
    for command in expected:
        assert len(catalogue.flags(command)) > 100


@pytest.mark.parametrize(
    ("command", "name", "default"),
    [
        ("sft", "loss_scale", "default"),
        ("pt", "loss_scale", "all"),
        ("rlhf", "loss_scale", None),
        ("sft", "use_chat_template", None),
        ("pt", "use_chat_template", False),
        ("deploy", "host", "0.0.0.0"),
        ("sft", "report_to", ["tensorboard"]),
    ],
)
def test_a_class_overrides_the_argument_of_the_class_below(
    command: str, name: str, default: object
) -> None:
    assert load_catalogue().flags(command)[name].default == default


def test_the_installed_version_is_taken_and_the_newest_shipped_without_it() -> None:
    versions = shipped_versions()
    expected = installed_version() if installed_version() in versions else versions[-1]
    assert load_catalogue().ms_swift == expected
    assert load_catalogue("99.0.0").ms_swift == versions[-1]


def test_every_rename_leads_to_an_argument_of_some_command() -> None:
    catalogue, renames = load_catalogue(), load_renames()
    known = {name for command in catalogue.commands for name in catalogue.flags(command)}
    assert {rename.new for rename in renames.names.values()} <= known
    assert set(renames.values) <= known


def test_no_old_name_is_an_argument_of_training() -> None:
    flags = load_catalogue().flags("rlhf")
    assert not set(load_renames().names) & set(flags) - {"custom_register_path"}


def test_a_long_list_of_choices_is_answered_with_the_nearest() -> None:
    fault = check_value(load_catalogue().flags("sft")["optim"], "adamw_8bits")
    assert fault is not None
    assert "adamw_8bit" in fault
    assert "galore" not in fault


@pytest.mark.parametrize("value", [True, None, {"a": 1}, "4.0", 4.5])
def test_a_value_beside_the_choices_is_refused(value: object) -> None:
    assert check_value(Flag(kind="choice", choices=[4, 8, "float8"]), value)


@pytest.mark.parametrize("value", [4, "4", "float8"])
def test_a_choice_may_be_written_as_text_or_number(value: object) -> None:
    assert check_value(Flag(kind="choice", choices=[4, 8, "float8"]), value) is None


def test_names_unlike_all_others_are_near_to_none() -> None:
    assert nearest("zzzzzz", ["lora_rank", "seed"]) == []
