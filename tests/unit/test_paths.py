"""Where files lie: in the checkout that is worked in, else in the one the code comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_deploy import REPOSITORY
from support_recipes import make_checkout

from palmswift.paths import (
    models_dir,
    project_path,
    project_root,
    runs_dir,
    user_path,
    work_root,
)


def test_a_checkout_that_is_worked_in_is_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_checkout(tmp_path))
    assert project_root() == work_root() == tmp_path
    assert (runs_dir(), models_dir()) == (tmp_path / "runs", tmp_path / "models")


def test_another_project_with_a_folder_called_recipes_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert project_root() == REPOSITORY


def test_an_installed_wheel_has_its_own_copies_and_works_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palmswift.paths._CHECKOUT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    assert project_root().name == "_shipped"
    assert work_root() == tmp_path


def test_a_home_is_expanded_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/rows.csv") == Path("/home/me/rows.csv")
    assert user_path("~no-such-user-anywhere/rows.csv") == Path("~no-such-user-anywhere/rows.csv")


def test_a_file_is_looked_for_here_then_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    assert project_path("README.md") == tmp_path / "README.md"
    assert project_path("LICENSE") == REPOSITORY / "LICENSE"
    assert project_path("/else/where") == Path("/else/where")
    assert project_path("x" * 300) == tmp_path / ("x" * 300)
