"""A run's adapter is merged by ms-swift where only that can, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support_checkpoints import Numbers, write_model
from support_runs import StandIn, make_run, prepare_project, write_project_recipe

from palmswift.command import Console
from palmswift.deploy.spec import base_of_run, spec_of_run
from palmswift.errors import ChildError, InputError
from palmswift.launchers import train
from palmswift.launchers.merge import base_folder, merge_arguments, merge_stage, require_room
from palmswift.launchers.run_folder import RunFolder, find_run
from palmswift.recipes.catalogue import load_catalogue

CONSOLE = Console(json_output=False)


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
    run = find_run("latest")
    merged = merge_stage(run, CONSOLE)
    assert merged == run.path / "export" / "merged"
    assert "by swift export, the whole model in memory: the base has no" in capsys.readouterr().err
    umask = os.umask(0)
    os.umask(umask)
    assert (merged / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask
    assert "swift.py export" in (run.path / "export" / "command.sh").read_text()
    assert swift.calls[-1]["adapters"] == [str(run.training / "checkpoint-4")]
    assert merge_stage(find_run("latest"), CONSOLE) == merged
    assert [call["command"] for call in swift.calls] == ["sft", "export"]


def test_a_merge_that_left_nothing_has_failed_and_can_be_done_again(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set("nothing")
    run = find_run("latest")
    with pytest.raises(ChildError, match="the merge failed"):
        merge_stage(run, CONSOLE)
    assert not (run.path / "export" / "merged").exists()
    (run.path / "export" / ".merged.part").mkdir()  # as an attempt that was killed has left
    swift.set("good")
    merge_stage(run, CONSOLE)
    assert sorted(path.name for path in (run.path / "export").iterdir()) == ["command.sh", "merged"]


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


def test_a_run_without_a_good_training_is_not_merged(swift: StandIn) -> None:
    run = find_run("latest")
    run.state.stages["train"].state = "failed"
    with pytest.raises(InputError, match=f"--resume {run.path.name}"):
        merge_stage(run, CONSOLE)


def test_a_full_tuning_has_no_adapter_to_merge(swift: StandIn) -> None:
    run = find_run("latest")
    for file in (run.training / "checkpoint-4").glob("adapter_*"):
        file.unlink()
    write_model(run.training, 4, {"layer.weight": Numbers("F32", [1.0, 1.0])})
    with pytest.raises(InputError, match="was tuned in full"):
        merge_stage(run, CONSOLE)


def test_a_torn_or_missing_adapter_is_refused_before_any_work(swift: StandIn) -> None:
    run = find_run("latest")
    checkpoint = run.training / "checkpoint-4"
    with (checkpoint / "adapter_model.safetensors").open("r+b") as stream:
        stream.truncate(200)
    with pytest.raises(InputError, match=r"adapter_model\.safetensors"):
        merge_stage(run, CONSOLE)
    shutil.rmtree(checkpoint)
    with pytest.raises(InputError, match="is not there any more"):
        merge_stage(run, CONSOLE)
    assert [call["command"] for call in swift.calls] == ["sft"]


def test_a_base_that_is_stored_quantised_is_not_merged_into(swift: StandIn) -> None:
    run = find_run("latest")
    config = {"model_type": "qwen3", "quantization_config": {"quant_method": "bitsandbytes"}}
    (base_folder(run) / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"stored quantised \(bitsandbytes\)"):
        merge_stage(run, CONSOLE)


def test_a_disk_that_is_too_small_is_told_before_the_merge(swift: StandIn, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the merged model takes 1000000000\.0 GB"):
        require_room(10**18, tmp_path, "the merged model")


def test_ms_swift_is_not_told_to_load_the_merged_weights_in_4_bit(swift: StandIn) -> None:
    run = find_run("latest")
    trained = {"template": "qwen3", "quant_method": "bnb", "quant_bits": 4, "adapters": ["x"]}
    (run.training / "checkpoint-4" / "args.json").write_text(json.dumps(trained))
    told = json.loads((merge_stage(run, CONSOLE) / "args.json").read_text())
    assert told == {"template": "qwen3", "torch_dtype": "bfloat16", "adapters": []}


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
