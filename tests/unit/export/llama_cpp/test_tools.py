"""Whose llama.cpp is used, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from palmswift.errors import InputError
from palmswift.export.llama_cpp import tools


def checkout(folder: Path, *programs: str) -> Path:
    """A llama.cpp that was built, as far as it is looked at."""
    built = folder / "build" / "bin"
    built.mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text("")
    for name in programs:
        (built / name).write_text("#!/bin/sh\n")
        (built / name).chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No llama.cpp of this machine."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv(tools.VARIABLE, raising=False)


def test_the_users_own_build_comes_before_packages(tmp_path: Path) -> None:
    own = checkout(tmp_path / "llama.cpp", "llama-quantize", "llama-server")
    built = own / "build" / "bin"
    assert tools.converter(own, print) == ([str(own)], str(own))
    assert tools.quantiser(own).argv == [str(built / "llama-quantize")]
    server = tools.server(own)
    assert server is not None and server.argv == [str(built / "llama-server")]


def test_what_a_checkout_lacks_is_taken_from_packages(tmp_path: Path) -> None:
    own = checkout(tmp_path / "llama.cpp")
    assert tools.quantiser(own).argv[0] == sys.executable
    assert tools.quantiser(own).origin.startswith("cyllama ")


def test_the_environment_names_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = checkout(tmp_path / "llama.cpp")
    monkeypatch.setenv(tools.VARIABLE, str(own))
    assert tools.own_folder(None) == own
    other = checkout(tmp_path / "other")
    assert tools.own_folder(other) == other


def test_a_folder_that_is_no_llama_cpp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no llama"):
        tools.own_folder(tmp_path)


def test_where_there_is_none_the_quantiser_is_asked_for_and_the_server_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tools.server(None) is None
    with pytest.raises(InputError, match="nothing here can quantise"):
        tools.quantiser(None)
