"""A run goes on as what it began as: another recipe or other rows are refused, a later end not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support_runs import StandIn, prepare_project, write_project_recipe

from palmswift.files import sha256_of
from palmswift.launchers.run_folder import RunFolder, find_run
from palmswift.launchers.train import main
from palmswift.recipes.load import resolved_yaml


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, in a project at `tmp_path` whose run of `mine` has been killed at step 3."""
    stand_in = prepare_project(tmp_path, monkeypatch)
    recipe = write_project_recipe(tmp_path)
    text = recipe.read_text()
    recipe.write_text(text.replace("  max_length: 128\n", "  max_length: 128\n  max_steps: 4\n"))
    assert main(["--recipe", "mine"]) == 0
    run = find_run("latest")
    shutil.rmtree(run.training / "checkpoint-4")
    run.state.stages["train"].state = "running"
    run.save()
    return stand_in


def _resume(*words: str) -> int:
    return main(["--resume", "latest", *words])


def test_the_same_recipe_and_the_same_rows_may_be_named_beside_resume(
    tmp_path: Path, swift: StandIn
) -> None:
    moved = shutil.copy(tmp_path / "train.jsonl", tmp_path / "renamed.jsonl")
    assert _resume("--recipe", "mine", "--data", str(moved)) == 0
    assert swift.calls[-1]["resume_from_checkpoint"][0].endswith("checkpoint-2")


def test_another_recipe_is_refused_key_by_key(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_project_recipe(tmp_path, "other", budget={"gpu_mib": 0, "disk_mib": 2})
    other.write_text(other.read_text().replace("seed: 42", "seed: 7"))
    assert _resume("--recipe", "other") == 2
    said = capsys.readouterr().err
    assert "cannot go on as another training" in said
    assert "swift.seed: the run has 42, and 7 is asked for" in said
    assert "budget.disk_mib: the run has 1, and 2 is asked for" in said
    assert len(swift.calls) == 1


def test_a_changed_key_is_refused_and_what_may_be_raised_is_named(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _resume("--set", "swift.learning_rate=0.1", "--set", "swift.max_steps=3") == 2
    said = capsys.readouterr().err
    assert "swift.learning_rate: the run has nothing, and 0.1 is asked for" in said
    assert "swift.max_steps: the run has 4, and 3 is asked for" in said
    assert "What may be raised: swift.num_train_epochs, swift.max_steps" in said


def test_other_rows_are_refused_with_both_hashes(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"query": "another", "response": "row"}\n')
    assert _resume("--data", str(other)) == 2
    said = capsys.readouterr().err
    assert f"{other}: its SHA-256 is {sha256_of(other)[:12]}" in said
    assert f"train.jsonl {sha256_of(tmp_path / 'train.jsonl')[:12]}" in said


def test_data_that_is_not_there_is_told(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _resume("--data", str(tmp_path / "nowhere.csv")) == 2
    assert f"{tmp_path / 'nowhere.csv'}: no such file" in capsys.readouterr().err
    assert len(swift.calls) == 1


def test_the_runs_own_recipe_stands_for_its_settings_and_its_rows_too(swift: StandIn) -> None:
    run = find_run("latest")
    run.state.overrides = ["swift.lora_rank=4"]
    run.recipe = run.recipe.model_copy(update={"swift": {**run.recipe.swift, "lora_rank": 4}})
    (run.path / "recipe.resolved.yaml").write_text(resolved_yaml(run.recipe))
    run.save()
    assert _resume("--recipe", "mine") == 0
    assert swift.calls[-1]["lora_rank"] == ["4"]


def test_rows_that_were_changed_in_the_run_are_refused(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = find_run("latest").data / "train.jsonl"
    rows.write_text(rows.read_text() * 2)
    assert _resume() == 2
    assert f"{rows}: it was changed (SHA-256 " in capsys.readouterr().err
    rows.unlink()
    assert _resume() == 2
    assert f"{rows}: it is gone" in capsys.readouterr().err


def test_what_has_changed_around_the_run_is_told_and_does_not_stop_it(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    run = find_run("latest")
    run.state.versions["torch"] = "1.13.0"
    run.save()
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 42", "seed: 7"))
    (tmp_path / "train.jsonl").write_text('{"query": "new", "response": "row"}\n')
    assert _resume() == 0
    said = capsys.readouterr().err
    assert "torch 1.13.0 is" in said
    assert "recipe mine was changed since (swift.seed: 42 -> 7); the run keeps its own" in said
    assert f"{tmp_path / 'train.jsonl'} was changed since" in said


def test_a_training_may_be_made_longer_and_says_what_that_means(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _resume() == 0
    run = find_run("latest")
    for step in (2, 4):
        state = run.training / f"checkpoint-{step}" / "trainer_state.json"
        state.write_text(json.dumps({"global_step": step, "max_steps": 4}))
    assert _resume("--set", "swift.max_steps=6") == 0
    said = capsys.readouterr().err
    assert "swift.max_steps is raised from 4 to 6" in said
    assert "not to the bit" in said
    assert swift.calls[-1]["resume_from_checkpoint"][0].endswith("checkpoint-4")
    assert swift.calls[-1]["max_steps"] == ["6"]
    again = find_run("latest")
    assert again.recipe.swift["max_steps"] == 6
    assert "max_steps: 4" in (again.path / "recipe.resolved.1.yaml").read_text()
    assert again.state.overrides == ["swift.max_steps=6"]
    assert again.is_done("train")


def test_a_run_whose_result_was_used_is_not_made_longer(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    run = find_run("latest")
    with run.stage("test_tuned"):
        pass
    assert _resume("--set", "swift.max_steps=6") == 2
    assert "was used since (test_tuned)" in capsys.readouterr().err


def test_a_run_that_was_moved_goes_on_where_it_is(
    tmp_path: Path, swift: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = find_run("latest")
    elsewhere = tmp_path / "elsewhere" / "a run"
    elsewhere.parent.mkdir()
    run.path.rename(elsewhere)
    (tmp_path / "model").rename(tmp_path / "model-of-old")
    shutil.copytree(tmp_path / "model-of-old", tmp_path / "model")
    assert main(["--resume", str(elsewhere)]) == 0
    assert swift.calls[-1]["resume_from_checkpoint"] == [str(elsewhere / "train/checkpoint-2")]
    assert swift.calls[-1]["dataset"] == [str(elsewhere / "data/train.jsonl")]
    assert RunFolder(elsewhere).facts("train")["checkpoint"] == "train/checkpoint-4"


def test_a_torn_checkpoint_is_kept_aside_and_the_one_before_is_taken(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _resume() == 0
    run = find_run("latest")
    run.state.stages["train"].state = "running"
    run.save()
    optimizer = run.training / "checkpoint-4" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-20])
    with (run.training / "logging.jsonl").open("a") as log:
        log.write('{"loss": 1.0, "global_st')  # the line that the kill cut off
    assert _resume() == 0
    said = capsys.readouterr().err
    assert "checkpoint-4 is torn: optimizer.pt is cut off" in said
    assert (run.path / "torn" / "checkpoint-4" / "trainer_state.json").is_file()
    assert swift.calls[-1]["resume_from_checkpoint"][0].endswith("checkpoint-2")
    rows = [json.loads(line) for line in (run.training / "logging.jsonl").read_text().splitlines()]
    steps = [row["global_step/max_steps"] for row in rows if "loss" in row]
    assert steps == ["1/4", "2/4", "3/4", "4/4"]
