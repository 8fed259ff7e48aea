"""One key chooses the trackers, and what they lack is told before anything is fetched."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from support_runs import make_recipe

from palmswift.launchers.arguments import TrainingPaths, training_arguments
from palmswift.launchers.render import render_training
from palmswift.launchers.tracking import reported_to, tracking_problems
from palmswift.recipes.recipe import Recipe

PATHS = TrainingPaths("M", Path("/r/mine-1/t.jsonl"), None, Path("/r/mine-1/train"))


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a login, with both trackers' packages installed."""
    for name in ("WANDB", "SWANLAB"):
        for part in ("API_KEY", "MODE", "BASE_URL", "SAVE_DIR", "PROJECT", "DIR", "LOG_DIR"):
            monkeypatch.delenv(f"{name}_{part}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("wandb", "swanlab", "tensorboard"):
        (tmp_path / "packages" / name).mkdir(parents=True)
        (tmp_path / "packages" / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _recipe(*trackers: str, **swift: object) -> Recipe:
    return make_recipe(swift={"report_to": [*trackers], **swift})


def _told(recipe: Recipe) -> str:
    return "\n".join(map(str, tracking_problems(recipe)))


def test_tensorboard_is_the_default_and_asks_for_nothing() -> None:
    assert reported_to(make_recipe()) == ["tensorboard"]
    assert _told(make_recipe()) == ""


@pytest.mark.parametrize(
    ("tracker", "key", "login"),
    [
        ("wandb", "WANDB_API_KEY", "wandb login"),
        ("swanlab", "SWANLAB_API_KEY", "swanlab login"),
    ],
)
def test_without_a_key_a_tracker_is_refused_with_three_ways_out(
    tracker: str, key: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _told(_recipe("tensorboard", tracker))
    assert f"swift.report_to: {tracker}" in told
    assert f"export {key}=" in told and login in told and "without the network" in told
    monkeypatch.setenv(key, "x")
    assert _told(_recipe("tensorboard", tracker)) == ""


def test_a_missing_package_is_told(nobody: Path) -> None:
    (nobody / "packages" / "wandb" / "__init__.py").unlink()
    (nobody / "packages" / "wandb").rmdir()
    assert "pip install wandb" in _told(_recipe("wandb"))


def test_all_that_is_missing_is_told_at_once() -> None:
    assert len(list(tracking_problems(_recipe("wandb", "swanlab", swanlab_token="x")))) == 3


def test_offline_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert _told(_recipe("wandb")) == ""
    assert _told(_recipe("swanlab", swanlab_mode="local")) == ""
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    assert _told(_recipe("swanlab")) == ""
    assert training_arguments(_recipe("swanlab"), PATHS)["swanlab_mode"] == "local"


def test_a_recipe_may_take_a_tracker_offline_itself() -> None:
    assert _told(_recipe("wandb").model_copy(update={"env": {"WANDB_MODE": "offline"}})) == ""


def test_a_login_of_before_counts(nobody: Path) -> None:
    file = nobody / ".netrc"
    file.write_text("machine api.wandb.ai login user password x\n")
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert _told(_recipe("wandb")) == ""
    file.write_text("machine elsewhere login user password x\n")
    assert "WANDB_API_KEY" in _told(_recipe("wandb"))
    file.write_text("this is no netrc")
    assert "WANDB_API_KEY" in _told(_recipe("wandb"))


def test_a_key_in_a_recipe_is_refused_since_every_run_copies_it() -> None:
    recipe = _recipe("wandb").model_copy(update={"env": {"WANDB_API_KEY": "x"}})
    assert "env.WANDB_API_KEY" in _told(recipe)
    assert "SWANLAB_API_KEY" in _told(_recipe("tensorboard", swanlab_token="x"))


def test_a_tracker_knows_the_run_by_its_name_and_keeps_its_files_in_it() -> None:
    recipe = _recipe("wandb", "swanlab")
    arguments = training_arguments(recipe, PATHS)
    assert (arguments["run_name"], arguments["swanlab_exp_name"]) == ("mine-1", "mine-1")
    environment = render_training(recipe, PATHS).env
    assert environment["WANDB_DIR"] == "/r/mine-1/train"
    assert environment["WANDB_PROJECT"] == "palmswift"
    own = _recipe("wandb", run_name="mine").model_copy(update={"env": {"WANDB_PROJECT": "ours"}})
    assert training_arguments(own, PATHS)["run_name"] == "mine"
    assert render_training(own, PATHS).env["WANDB_PROJECT"] == "ours"
