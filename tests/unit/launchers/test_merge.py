"""A run's adapter is merged into 16-bit weights, or it is said why not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support_runs import StandIn, make_run, prepare_project, write_project_recipe

from palmswift.deploy.spec import base_of_run, spec_of_run
from palmswift.launchers import train
from palmswift.launchers.merge import merge_arguments
from palmswift.launchers.run_folder import RunFolder, find_run
from palmswift.recipes.catalogue import load_catalogue


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, in a project at `tmp_path` with a finished LoRA run."""
    stand_in = prepare_project(tmp_path, monkeypatch)
    write_project_recipe(tmp_path)
    assert train.main(["--recipe", "mine"]) == 0
    return stand_in


def test_a_merge_leaves_weights_and_the_command_that_made_them(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["--run", "latest", "--merge", "--json"]) == 0
    run = find_run("latest")
    merged = run.path / "export" / "merged"
    assert json.loads(capsys.readouterr().out)["merged"] == str(merged)
    umask = os.umask(0)
    os.umask(umask)
    assert (merged / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask
    assert "swift.py export" in (run.path / "export" / "command.sh").read_text()
    assert swift.calls[-1]["adapters"] == [str(run.training / "checkpoint-4")]
    assert main(["--merge"]) == 0
    assert [call["command"] for call in swift.calls] == ["sft", "export"]


def test_a_merge_that_left_nothing_has_failed_and_can_be_done_again(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set("nothing")
    assert main(["--merge"]) == 3
    assert "the merge failed" in capsys.readouterr().err
    half = find_run("latest").path / "export" / "merged"
    half.mkdir()
    swift.set("good")
    assert main(["--merge"]) == 0


def test_a_recipe_that_merges_trains_merges_and_serves_the_merged_weights(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert train.main(["--recipe", "mine", "--set", "export.merge=true", "--json"]) == 0
    run = find_run("latest")
    merged = run.path / "export" / "merged"
    assert json.loads(capsys.readouterr().out)["checkpoint"] == str(merged)
    assert list(run.state.stages) == ["model", "data", "train", "merge"]
    spec = spec_of_run(run)
    assert (spec.model, spec.adapter) == (str(merged), None)
    assert base_of_run(run).model == str(run.facts("model")["model"])


def test_what_is_to_be_made_has_to_be_said(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 2
    assert "--merge" in capsys.readouterr().err


def test_a_run_without_a_good_training_is_not_merged(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    run = find_run("latest")
    run.state.stages["train"].state = "failed"
    run.save()
    assert main(["--merge"]) == 2
    assert f"--resume {run.path.name}" in capsys.readouterr().err


def test_a_full_tuning_has_no_adapter_to_merge(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    run = find_run("latest")
    (run.training / "checkpoint-4" / "adapter_config.json").unlink()
    assert main(["--merge"]) == 2
    assert "was tuned in full" in capsys.readouterr().err


def _with_model(folder: Path, **changes: object) -> RunFolder:
    run = make_run(folder, **changes)
    with run.stage("model") as facts:
        facts["model"] = "Qwen/Qwen3-8B"
    return run


def test_a_quantised_base_is_merged_in_16_bit(tmp_path: Path) -> None:
    swift = {"quant_method": "bnb", "quant_bits": 4, "torch_dtype": "float16"}
    arguments = merge_arguments(_with_model(tmp_path, swift=swift), Path("c"), Path("o"))
    assert arguments["torch_dtype"] == "bfloat16"
    assert not arguments.keys() & {"quant_method", "quant_bits"}


def test_the_base_comes_from_the_hub_that_it_was_trained_from(tmp_path: Path) -> None:
    model = {"id": "Qwen/Qwen3-8B", "source": "huggingface", "revision": "v1"}
    arguments = merge_arguments(_with_model(tmp_path, model=model), Path("c"), Path("o"))
    assert (arguments["use_hf"], arguments["model_revision"]) == (True, "v1")


def test_ms_swift_knows_every_argument_of_a_merge(tmp_path: Path) -> None:
    run = _with_model(tmp_path, swift={"model_type": "qwen3", "template": "qwen3"})
    known = load_catalogue().flags("export")
    assert merge_arguments(run, Path("c"), Path("o")).keys() <= known.keys()
