"""A training goes through its stages, is judged, and can be taken up again wherever it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support_data import CharacterJudge
from support_deploy import REPOSITORY, processes_of
from support_runs import StandIn, make_recipe, prepare_project, write_project_recipe

from palmswift.errors import InputError
from palmswift.files import sha256_of
from palmswift.launchers.run_folder import RunFolder, find_run
from palmswift.launchers.train import main
from palmswift.launchers.training import preflight
from palmswift.plan.fit import Plan


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, in a project at `tmp_path` that has the recipe `mine`."""
    stand_in = prepare_project(tmp_path, monkeypatch)
    write_project_recipe(tmp_path)
    return stand_in


def _latest() -> RunFolder:
    return find_run("latest")


def test_a_training_leaves_its_data_its_command_and_its_verdict(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--recipe", "mine", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    run = _latest()
    assert document["checkpoint"] == str(run.training / "checkpoint-4")
    assert [name for name in document["stages"] if run.is_done(name)] == ["model", "data", "train"]
    assert run.facts("train") == {
        "steps": 4,
        "first_loss": 4.0,
        "last_loss": 1.0,
        "eval_losses": [5.0, 2.5, 5.0 / 3, 1.25],
        "checkpoint": "train/checkpoint-4",
    }
    assert run.state.inputs == {
        str(tmp_path / name): sha256_of(tmp_path / name) for name in ("train.jsonl", "val.jsonl")
    }
    assert "swift.py sft" in (run.path / "command.sh").read_text()
    assert swift.calls[0]["dataset"] == [str(run.data / "train.jsonl")]
    assert swift.calls[0]["val_dataset"] == [str(run.data / "val.jsonl")]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("nan", "loss_not_finite"), ("oom", "out_of_memory"), ("nothing", "no_steps")],
)
def test_a_training_that_failed_is_exit_code_3_with_cause_and_way_on(
    swift: StandIn, capsys: pytest.CaptureFixture[str], mode: str, kind: str
) -> None:
    swift.set(mode)
    assert main(["--recipe", "mine"]) == 3
    said = capsys.readouterr().err
    run = _latest()
    assert f"the training failed ({kind})" in said
    assert f"launchers/train.py --resume {run.path.name}" in said
    assert run.state.stages["train"].state == "failed"
    assert run.facts("train")["failure"]["kind"] == kind


def test_a_failed_training_is_taken_up_again_from_its_last_whole_checkpoint(
    swift: StandIn,
) -> None:
    main(["--recipe", "mine"])
    run = _latest()
    run.state.stages["train"].state = "failed"
    run.save()
    (run.training / "checkpoint-4" / "trainer_state.json").write_text('{"best_global')
    assert main(["--resume", run.path.name]) == 0
    assert swift.calls[-1]["resume_from_checkpoint"] == [str(run.training / "checkpoint-2")]
    assert _latest().facts("train")["eval_losses"] == [5.0, 2.5, 5.0 / 3, 1.25]


def test_an_attempt_without_a_checkpoint_leaves_nothing_that_the_next_is_judged_by(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set("oom")
    assert main(["--recipe", "mine"]) == 3
    run = _latest()
    run.training.mkdir(exist_ok=True)
    (run.training / "logging.jsonl").write_text(
        '{"loss": NaN, "global_step/max_steps": "1/4"}\n{"loss": 9, "global_step/max_steps": "9/9"}'
    )
    swift.set("killed")
    assert main(["--resume", "latest"]) == 3
    assert "(killed)" in capsys.readouterr().err.splitlines()[-4]
    swift.set("good")
    assert main(["--resume", "latest"]) == 0
    assert _latest().facts("train")["steps"] == 4


def test_a_finished_run_is_not_trained_again(swift: StandIn) -> None:
    assert main(["--recipe", "mine"]) == 0
    assert main(["--resume", "latest"]) == 0
    assert len(swift.calls) == 1


def test_an_interrupted_data_stage_leaves_no_file_and_is_done_again(
    swift: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", interrupted)
    assert main(["--recipe", "mine"]) == 130
    run = _latest()
    assert f"--resume {run.path.name}" in capsys.readouterr().err
    assert run.state.stages["data"].state == "interrupted"
    assert not run.data.exists()
    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", CharacterJudge)
    assert main(["--resume", "latest"]) == 0


def test_a_run_does_not_go_on_with_other_rows_than_it_began_with(
    tmp_path: Path,
    swift: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", interrupted)
    main(["--recipe", "mine"])
    before = _latest().path.joinpath("run.json").read_text()
    with (tmp_path / "train.jsonl").open("a") as rows:
        rows.write('{"query": "one more", "response": "ok"}\n')
    assert main(["--resume", "latest"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'train.jsonl'}: it is not what it was" in said
    assert _latest().path.joinpath("run.json").read_text() == before


def test_rows_may_change_once_the_run_has_its_own_copy(tmp_path: Path, swift: StandIn) -> None:
    swift.set("oom")
    assert main(["--recipe", "mine"]) == 3
    (tmp_path / "train.jsonl").unlink()
    swift.set("good")
    assert main(["--resume", "latest"]) == 0


def test_rows_that_are_all_rejected_are_exit_code_1_with_their_reasons(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "bad.jsonl"
    rows.write_text('{"query": "why?", "response": ""}\n' * 3)
    assert main(["--recipe", "mine", "--data", str(rows)]) == 1
    said = capsys.readouterr().err
    assert "none of the 3 training rows can be used" in said
    assert "rejected.jsonl" in said
    assert not (_latest().data / "train.jsonl").exists()
    assert swift.calls == []


def test_a_model_that_a_recipe_makes_is_trained_once_and_kept(
    tmp_path: Path, swift: StandIn
) -> None:
    values = {"tuner_type": "full"}
    _write_base_and_user(tmp_path, values)
    assert main(["--recipe", "user"]) == 0
    assert main(["--recipe", "user"]) == 0
    assert [call["tuner_type"] for call in swift.calls] == [["full"], ["lora"], ["lora"]]
    (model,) = (tmp_path / "models").glob("maker-*")
    assert swift.calls[-1]["model"] == [str(model)]
    assert sorted(file.name for file in model.iterdir()) == [
        "config.json",
        "model.safetensors",
        "palmswift.json",
        "tokenizer.json",
    ]


def test_an_interrupted_base_training_is_taken_up_in_its_own_run(
    tmp_path: Path, swift: StandIn
) -> None:
    _write_base_and_user(tmp_path, {"tuner_type": "full"})
    swift.set("oom")
    assert main(["--recipe", "user"]) == 3
    assert list((tmp_path / "models").glob("maker*")) == []
    swift.set("good")
    assert main(["--resume", "latest"]) == 0
    nested = list((_latest().path / "base").glob("*/run.json"))
    assert len(nested) == 1
    assert RunFolder(nested[0].parent).is_done("train")


def test_files_that_the_base_recipe_lacks_are_told_before_the_run(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_base_and_user(tmp_path, {}, train="gone.jsonl")
    assert main(["--recipe", "user"]) == 2
    assert f"{tmp_path / 'gone.jsonl'}: no such file" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def _write_base_and_user(folder: Path, swift: dict[str, Any], train: str = "train.jsonl") -> None:
    """The recipe `maker`, and `user` that stands on what it trains."""
    maker = write_project_recipe(folder, "maker", data={"train": [train], "val": ["val.jsonl"]})
    text = maker.read_text()
    for name, value in swift.items():
        text = text.replace(f"{name}: lora", f"{name}: {value}")
    maker.write_text(text)
    write_project_recipe(folder, "user", model={"id": "maker", "source": "recipe"})


def _wait_for(what: str, found: Any) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _run_with_data(swift: StandIn) -> RunFolder:
    """A run that has its data, and whose training failed at once."""
    swift.set("oom")
    main(["--recipe", "mine"])
    swift.set("hang")
    return _latest()


def _launch(run: RunFolder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "launchers/train.py"), "--resume", run.path.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_launcher_leaves_no_process_and_goes_on_from_its_checkpoint(
    tmp_path: Path, swift: StandIn, number: signal.Signals
) -> None:
    run = _run_with_data(swift)
    launcher = _launch(run)
    _wait_for("the training hangs", swift.is_hanging)
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert f"--resume {run.path.name}" in said
    assert processes_of(tmp_path) == []
    assert RunFolder(run.path).state.stages["train"].state == "interrupted"
    swift.set("good")
    assert main(["--resume", run.path.name]) == 0
    assert swift.calls[-1]["resume_from_checkpoint"] == [str(run.training / "checkpoint-2")]
    assert RunFolder(run.path).facts("train")["eval_losses"] == [5.0, 2.5, 5.0 / 3, 1.25]


def test_a_killed_launcher_leaves_no_process_and_a_run_that_goes_on(
    tmp_path: Path, swift: StandIn
) -> None:
    run = _run_with_data(swift)
    launcher = _launch(run)
    _wait_for("the training hangs", swift.is_hanging)
    launcher.kill()
    launcher.communicate(timeout=60)
    _wait_for("everything ends", lambda: not processes_of(tmp_path))
    assert RunFolder(run.path).state.stages["train"].state == "running"
    swift.set("good")
    assert main(["--resume", run.path.name]) == 0


def _card_with(free_mib: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card with that much free, and a recipe `large` for it: an adapter on Qwen3-8B."""
    program = folder / "tools" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho 'NVIDIA RTX 4060, 595.71, 8188, {free_mib}, 8.9'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    write_project_recipe(
        folder,
        "large",
        model={"id": "Qwen/Qwen3-8B"},
        budget={"gpu_mib": 8188, "disk_mib": 1},
    )


def test_what_cannot_fit_is_not_started_unless_it_is_forced(
    tmp_path: Path,
    swift: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _card_with(7900, tmp_path, monkeypatch)
    words = ["--recipe", "large", "--set", "swift.max_length=64"]
    assert main(words) == 1  # 15 GB of 16-bit weights
    said = capsys.readouterr().err
    assert "NVIDIA RTX 4060 has 7,900 MiB free of 8,188" in said
    assert "--recipe large --set swift.max_length=64 --gpu-mib 7900 --headless --fit" in said
    assert "--force starts it all the same" in said
    assert not (tmp_path / "runs").exists()
    assert swift.calls == []
    assert main([*words, "--force"]) == 0
    assert len(swift.calls) == 1


def test_the_plan_in_a_run_folder_is_for_the_rows_themselves(
    tmp_path: Path, swift: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card_with(7900, tmp_path, monkeypatch)
    words = ["--set", "swift.quant_method=bnb", "--set", "swift.quant_bits=4"]
    assert main(["--recipe", "large", *words]) == 0
    plan = Plan.model_validate_json((_latest().path / "plan.json").read_text())
    assert plan.fits
    assert plan.from_data
    assert 0 < plan.length < 128
    assert (plan.gpu_mib, plan.desktop_mib) == (7900, 0)


def test_the_preflight_tells_every_fault_of_every_file_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    names = [str(tmp_path / name) for name in ("empty.jsonl", "gone.jsonl", "x" * 300)]
    model = {"id": str(tmp_path / "no-model"), "source": "local"}
    recipe = make_recipe(data={"train": names}, model=model, plugins=[str(tmp_path / "p.py")])
    with pytest.raises(InputError) as caught:
        preflight(recipe, tmp_path)
    told = [problem.what for problem in caught.value.problems]
    assert told == [
        "no such file",
        "the file is empty",
        "no such file",
        "there is no such file",
        f"{tmp_path / 'no-model'} is not a model folder: it has no config.json",
    ]


def test_a_file_whose_name_is_not_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.jsonl")
    path.write_text("{}\n")
    with pytest.raises(InputError, match="its name is not UTF-8"):
        preflight(make_recipe(data={"train": [str(path)]}), tmp_path)


def test_a_place_that_may_not_be_written_is_told_before_anything_is_begun(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").symlink_to("/proc/self")  # where not even root may make a folder
    assert main(["--recipe", "mine"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert str(tmp_path / "runs") in said
    assert swift.calls == []
