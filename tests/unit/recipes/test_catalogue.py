from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.recipes import catalogue as catalogue_module
from palmswift.recipes.catalogue import (
    Flag,
    check_value,
    chosen_version,
    load_catalogue,
    load_renames,
    nearest,
    read_document,
    shipped_versions,
)
from palmswift.recipes.catalogue_static import write_catalogues


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


@pytest.mark.parametrize(
    ("installed", "version", "remark"),
    [
        ("4.6.0", "4.6.0", ""),
        ("4.5.3", "4.5.3", ""),
        ("4.5.1", "4.5.3", "ms-swift 4.5.1 is installed"),
        ("4.6.1.dev0", "4.6.0", "ms-swift 4.6.1.dev0 is installed"),
        ("99.0", "4.6.0", "ms-swift 99.0 is installed"),
        ("2.6.1", "4.6.0", "ms-swift 2.6.1 is installed"),
        (None, "4.6.0", "no ms-swift is installed"),
    ],
)
def test_the_installed_version_decides_and_the_nearest_known_is_said_to_stand_in(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, version: str, remark: str
) -> None:
    monkeypatch.setattr(catalogue_module, "installed_version", lambda: installed)
    chosen = chosen_version()
    assert chosen.version == version
    assert remark in chosen.remark
    assert bool(chosen.remark) == bool(remark)
    assert load_catalogue().ms_swift == version


def test_the_newest_release_of_every_minor_line_since_3_12_is_known() -> None:
    lines = [version.rpartition(".")[0] for version in shipped_versions()]
    assert lines == ["3.12", "4.0", "4.1", "4.2", "4.3", "4.4", "4.5", "4.6"]


@pytest.mark.parametrize("version", shipped_versions())
def test_every_known_version_has_the_arguments_of_every_command(version: str) -> None:
    catalogue = load_catalogue(version)
    assert set(catalogue.commands) == set(load_catalogue().commands)
    for command in catalogue.commands:
        flags = catalogue.flags(command)
        assert {"model", "template", "max_length"} <= set(flags)
        assert all(flag.doc or flag.kind for flag in flags.values())
    assert ("train_type" in catalogue.flags("sft")) == (version < "4.1")
    assert ("tuner_type" in catalogue.flags("sft")) == (version >= "4.0")
    assert ("preserve_thinking" in catalogue.flags("sft")) == (version >= "4.3")


def test_a_version_that_is_not_shipped_has_no_catalogue() -> None:
    with pytest.raises(KeyError):
        load_catalogue("99.0.0")


_FLAGS = st.dictionaries(
    st.sampled_from("abcd"), st.fixed_dictionaries({"kind": st.sampled_from(["int", "str"])})
)
_CATALOGUES = st.dictionaries(st.sampled_from("XYZ"), _FLAGS, min_size=1).map(
    lambda classes: {
        "ms_swift": "1",
        "transformers": "1",
        "commands": {"sft": sorted(classes)},
        "classes": classes,
    }
)


@given(older=_CATALOGUES, whole=_CATALOGUES)
def test_a_difference_and_the_whole_make_the_older_catalogue(
    older: dict[str, Any], whole: dict[str, Any]
) -> None:
    with TemporaryDirectory() as folder:
        older, whole = {**older, "ms_swift": "1.0.0"}, {**whole, "ms_swift": "2.0.0"}
        write_catalogues({"1.0.0": older, "2.0.0": whole}, Path(folder))
        assert read_document("1.0.0", Path(folder)) == older
        assert read_document("2.0.0", Path(folder)) == whole


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
