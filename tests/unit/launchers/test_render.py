"""The rendered script and the argument list are the same command."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_recipes import make_checkout

from palmswift.errors import InputError
from palmswift.launchers.render import (
    PROGRAM_VARIABLE,
    Rendered,
    SwiftCommand,
    direct_words,
    render_command,
    swift_program,
)
from palmswift.recipes.recipe import flag_words

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_VALUES = st.one_of(
    _TEXT, st.integers(), st.booleans(), st.floats(allow_nan=False), st.lists(_TEXT, max_size=3)
)


@given(
    arguments=st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), _VALUES, max_size=5),
    title=_TEXT,
)
def test_the_argument_list_holds_each_value_unchanged(
    arguments: dict[str, str | int | bool | float | list[str]], title: str
) -> None:
    rendered = render_command("sft", dict(arguments), title=title)
    expected = [*swift_program(), "sft"]
    for name, value in arguments.items():
        expected += [f"--{name}", *flag_words(list(value) if isinstance(value, list) else value)]
    assert rendered.argv == expected


@settings(max_examples=25, deadline=None)
@given(value=_TEXT, variable=_TEXT)
def test_bash_runs_the_script_with_exactly_the_argument_list(value: str, variable: str) -> None:
    program = [sys.executable, "-c", "import json, os, sys; print(json.dumps(sys.argv[1:]))"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PROGRAM_VARIABLE, shlex.join(program))
        rendered = render_command(
            "deploy", {"system": value, "target_modules": ["a b", value]}, env={"MARK": variable}
        )
    done = subprocess.run(["bash", "-c", rendered.script], capture_output=True, check=True)
    assert json.loads(done.stdout) == rendered.argv[len(program) :]


@pytest.mark.parametrize("command", get_args(SwiftCommand))
def test_every_command_has_a_template(command: SwiftCommand) -> None:
    rendered = render_command(command, {"model": "Qwen/Qwen3-8B"})
    assert rendered.argv[-3:] == [command, "--model", "Qwen/Qwen3-8B"]
    assert rendered.script.startswith("#!/usr/bin/env bash\n")


def test_bools_lists_and_maps_become_the_words_that_ms_swift_reads() -> None:
    assert flag_words(True) == ["true"]
    assert flag_words(["q_proj", "k_proj"]) == ["q_proj", "k_proj"]
    assert json.loads(flag_words({"a": "名"})[0]) == {"a": "名"}
    assert flag_words(1e-4) == ["0.0001"]


def test_a_name_that_a_template_does_not_know_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkout(tmp_path)
    (tmp_path / "launchers/templates" / "sft.sh.j2").write_text("{{ nowhere }}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        render_command("sft", {})


def _rendered(word: str, env: dict[str, str] | None = None, program: str = "") -> Rendered:
    words = [program] if program else swift_program()
    return Rendered(script="", argv=[*words, word, "--model", "m"], env=env or {})


def test_one_process_is_started_without_swifts_wrapper_and_with_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `swift` itself says that it runs is what is run."""
    for name in (PROGRAM_VARIABLE, "NPROC_PER_NODE", "NNODES"):
        monkeypatch.delenv(name, raising=False)
    for word in ("sft", "deploy"):
        words = direct_words(_rendered(word))
        assert words[0] == sys.executable
        assert Path(words[1]).parts[-3:] == ("swift", "cli", f"{word}.py")
        assert Path(words[1]).is_file()
        assert words[2:] == ["--model", "m"]
    several = _rendered("deploy", env={"NPROC_PER_NODE": "2"})
    assert direct_words(several) == direct_words(_rendered("deploy"))  # swift forks none for it


@pytest.mark.parametrize(
    "rendered",
    [
        _rendered("export"),
        _rendered("sft", env={"NPROC_PER_NODE": "2"}),
        _rendered("rlhf", env={"NNODES": "2"}),
        _rendered("sft", program="/elsewhere/bin/swift"),
        _rendered("megatron"),
    ],
)
def test_what_the_wrapper_is_needed_for_is_started_with_it(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (PROGRAM_VARIABLE, "NPROC_PER_NODE", "NNODES"):
        monkeypatch.delenv(name, raising=False)
    assert direct_words(rendered) == rendered.argv
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    assert direct_words(_rendered("sft")) == _rendered("sft").argv
    monkeypatch.delenv("NPROC_PER_NODE")
    monkeypatch.setenv(PROGRAM_VARIABLE, "python other.py")
    other = Rendered(script="", argv=["python", "other.py", "sft"], env={})
    assert direct_words(other) == other.argv
