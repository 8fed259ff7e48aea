"""The `palmswift` command hands each word to its script."""

from __future__ import annotations

import importlib

import pytest
from support_deploy import REPOSITORY

from palmswift import __version__
from palmswift.__main__ import COMMANDS, main


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_lists_every_word(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    printed = capsys.readouterr().out
    for name, (_, purpose) in COMMANDS.items():
        assert f"  {name}" in printed
        assert purpose in printed


@pytest.mark.parametrize("word", COMMANDS)
def test_every_word_has_help_with_examples(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([word, "--help"])
    assert caught.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_every_script_is_a_word_of_the_command() -> None:
    modules = {module for module, _ in COMMANDS.values()}
    for folder in ("launchers", "data", "deploy", "eval"):
        for script in (REPOSITORY / folder).glob("*.py"):
            source = script.read_text(encoding="utf-8")
            assert any(f"from {module} import main" in source for module in modules), script


def test_a_mistyped_word_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err
    assert main(["zzz"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"palmswift {__version__}\n"


def test_a_words_exit_code_is_the_commands() -> None:
    assert main(["recipes", "show", "no-such-recipe"]) == 2
    assert importlib.import_module(COMMANDS["recipes"][0]).main(["check"]) == 0
