"""Runs are listed whatever state they are in, compared, followed, cleaned up and repeated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_checkpoints import write_adapter
from support_runs import StandIn, prepare_project, write_project_recipe

from palmswift.launchers.events import StepEvent
from palmswift.launchers.run_folder import RunFolder, find_run
from palmswift.launchers.train import main as train
from palmswift.paths import runs_dir
from palmswift.runs_command import main

HOLD = """
import sys
from pathlib import Path
from palmswift.launchers.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
with run.lock():
    with run.stage("train"):
        print("held", flush=True)
        input()
"""


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in for `swift`, in a project at `tmp_path` that has the recipe `mine`."""
    stand_in = prepare_project(tmp_path, monkeypatch)
    write_project_recipe(tmp_path)
    return stand_in


@pytest.fixture
def trained(swift: StandIn, capsys: pytest.CaptureFixture[str]) -> RunFolder:
    """A run that has come to its end."""
    assert train(["--recipe", "mine"]) == 0
    capsys.readouterr()
    return find_run("latest")


@pytest.fixture
def running(trained: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains on the run `trained`, until it is given a line."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(trained.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def _state(capsys: pytest.CaptureFixture[str], run: RunFolder) -> str:
    [line] = [line for line in _json(capsys, "list")["runs"] if line["run"] == run.path.name]
    return str(line["state"])


def test_a_finished_run_is_listed_with_what_it_came_to(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = _json(capsys, "list")["runs"]
    assert (line["state"], line["steps"], line["loss"], line["eval_loss"]) == ("done", 4, 1.0, 1.25)
    assert line["bytes"] > 0
    assert main(["list"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "state", "steps", "loss", "eval", "time", "size"]
    assert row.split()[:5] == [trained.path.name, "done", "4", "1", "1.25"]


def test_a_failed_run_is_listed_with_its_cause(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set("oom")
    assert train(["--recipe", "mine"]) == 3
    capsys.readouterr()
    assert main(["list"]) == 0
    shown = capsys.readouterr()
    assert "failed (train)" in shown.out
    assert "out_of_memory" in shown.err
    assert main(["show", "latest"]) == 0
    assert "-> " in capsys.readouterr().out


def test_a_run_is_running_only_while_a_process_works_on_it(
    trained: RunFolder, running: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _state(capsys, trained) == "running"
    running.kill()
    running.wait()
    assert _state(capsys, trained) == "died"
    assert main(["list"]) == 0
    assert f"--resume {trained.path.name}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", '{"recipe": 1}', "\udcff"])
def test_a_damaged_run_is_listed_as_such(
    trained: RunFolder, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (trained.path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert _state(capsys, trained) == "damaged"


def test_without_runs_there_is_an_empty_list(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _json(capsys, "list") == {"runs": []}


def test_two_runs_are_compared_in_recipe_data_and_results(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "train.jsonl").open("a") as rows:
        rows.write('{"query": "one more", "response": "ok"}\n')
    assert train(["--recipe", "mine", "--set", "swift.seed=7"]) == 0
    capsys.readouterr()
    found = {
        (row["part"], row["key"]): (row["first"], row["second"])
        for row in _json(capsys, "compare", trained.path.name, "latest")["differences"]
    }
    assert found["recipe", "swift.seed"] == ("42", "7")
    assert ("data", "train.jsonl") in found
    assert found["results", "data.train"] == ("6", "7")
    assert not [key for key in found if key[0] in ("versions", "hardware", "model")]
    assert main(["compare", "latest", "latest"]) == 0
    assert "nothing differs" in capsys.readouterr().out


def test_a_running_training_is_followed_to_its_end(
    trained: RunFolder, running: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    trained.events.add(StepEvent(step=2, max_steps=4, loss=0.5))
    (trained.logs / "train.log").write_text("a word of ms-swift\r 1%\r 2% of it\n")
    follower = threading.Thread(target=main, args=(["tail", trained.path.name],))
    follower.start()
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.close()
    running.wait()
    follower.join(60)
    assert not follower.is_alive()
    said = capsys.readouterr().out
    assert "step 2/4  loss 0.5000" in said
    assert "    |  2% of it" in said
    assert "stage train: done" in said
    assert said.splitlines()[-1] == f"{trained.path.name} is done"


def test_a_run_that_is_over_is_followed_for_a_moment(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tail", "latest", "--only", "events"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("step 4/4  loss 1.0000" in line for line in lines)
    assert not [line for line in lines if line.startswith("    |")]


def test_cleaning_says_what_can_go_and_deletes_it_only_when_told_to(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    last = trained.training / "checkpoint-4"
    with zipfile.ZipFile(last / "optimizer.pt", "a") as archive:
        archive.writestr("numbers", b"x" * 100)
    told = [Path(item["path"]).name for item in _json(capsys, "clean")["items"]]
    assert told == ["checkpoint-2", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
    assert (trained.training / "checkpoint-2").is_dir()
    assert _json(capsys, "clean", "--yes")["bytes"] > 100
    assert sorted(path.name for path in trained.training.glob("checkpoint-*")) == ["checkpoint-4"]
    assert sorted(path.name for path in last.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "trainer_state.json",
    ]
    assert _json(capsys, "clean", "--yes")["items"] == []
    assert find_run("latest").is_done("train")


def test_what_was_set_aside_as_torn_goes_too(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained.path / "torn" / "checkpoint-3").mkdir(parents=True)
    assert main(["clean", "--yes"]) == 0
    assert "not whole" in capsys.readouterr().out
    assert list((trained.path / "torn").iterdir()) == []


def test_the_best_the_last_and_the_chosen_checkpoint_are_never_cleaned_away(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (6, 8, 10):
        write_adapter(trained.training, step, best=6)
    assert main(["clean", "--yes"]) == 0
    left = sorted(path.name for path in trained.training.glob("checkpoint-*"))
    assert left == ["checkpoint-10", "checkpoint-4", "checkpoint-6"]


def test_a_run_that_is_going_on_is_not_touched_even_when_it_is_named(
    trained: RunFolder, running: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _json(capsys, "clean", "--yes")["items"] == []
    assert main(["clean", trained.path.name, "--yes"]) == 2
    assert "Ctrl-C" in capsys.readouterr().err
    assert (trained.training / "checkpoint-2").is_dir()


def test_a_run_that_left_nothing_goes_wholly_and_one_that_is_named_too(
    trained: RunFolder, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set("oom")
    assert train(["--recipe", "mine"]) == 3
    failed = find_run("latest")
    assert main(["clean", "--yes"]) == 0
    assert not failed.path.exists()
    (trained.path / "run.json").write_text("{")
    assert main(["clean", trained.path.name]) == 0
    assert trained.path.exists()
    assert main(["clean", trained.path.name, "--yes"]) == 0
    assert list(runs_dir().iterdir()) == []
    assert main(["clean", "latest", "--yes"]) == 2


def test_a_run_is_repeated_from_its_run_json_alone(
    trained: RunFolder, swift: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.json"
    (trained.path / "run.json").rename(kept)
    (tmp_path / "recipes" / "mine.yaml").unlink()
    document = _json(capsys, "reproduce", str(kept))
    again = find_run("latest")
    assert document["differences"] == []
    assert again.state.reproduces == "kept"
    assert [call["dataset"] for call in swift.calls] == [
        [str(run.data / "train.jsonl")] for run in (trained, again)
    ]
    plain = [{k: v for k, v in call.items() if k not in PATHS} for call in swift.calls]
    assert plain[0] == plain[1]
    assert document["results"] == [
        *("steps: the same", "first loss: the same", "last loss: the same"),
        *("eval losses: the same", "cleaned rows: the same"),
    ]


PATHS = {"dataset", "val_dataset", "output_dir"}


def test_all_that_differs_is_said_and_nothing_is_started(
    trained: RunFolder,
    swift: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (tmp_path / "train.jsonl").open("a") as rows:
        rows.write('{"query": "one more", "response": "ok"}\n')
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3", "other": 1}')
    versions = {**trained.state.versions, "torch": "9.9"}
    monkeypatch.setattr("palmswift.launchers.run_folder.package_versions", lambda recipe: versions)
    assert main(["reproduce", "latest"]) == 1
    said = capsys.readouterr().err
    for words in ("data", "train.jsonl", "versions torch", "9.9 now", "model config.json"):
        assert words in said
    assert len(swift.calls) == 1
    assert main(["reproduce", "latest", "--dry-run", "--force"]) == 0
    assert "3 things differ" in capsys.readouterr().out
    assert main(["reproduce", "latest", "--force"]) == 0
    assert len(swift.calls) == 2


def test_what_a_scheduler_has_trained_is_handed_to_it_again(
    swift: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho 77\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(sbatch.parent), os.environ["PATH"]]))
    assert train(["--recipe", "mine", "--set", "launch.scheduler=slurm"]) == 0
    first = find_run("latest")
    capsys.readouterr()
    document = _json(capsys, "reproduce", "latest")
    again = find_run("latest")
    assert (document["reproduces"], document["job"]) == (first.path.name, "77")
    assert document["run"] == str(again.path) != str(first.path)
    assert again.recipe.launch.scheduler == "slurm"
    assert "job.slurm" in {file.name for file in again.launch.iterdir()}
    assert len(swift.calls) == 0  # nothing is trained here


def test_a_run_that_was_recovered_is_repeated_from_its_beginning_and_that_is_said(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.state.stages["train"].facts["attempts"] = [
        {"number": 1, "changes": [], "steps": 2, "outcome": "out_of_memory"},
        {"number": 2, "changes": ["per_device_train_batch_size 4 -> 2"], "steps": 4},
    ]
    trained.save()
    assert main(["reproduce", "latest", "--dry-run"]) == 0
    assert "went on with per_device_train_batch_size 4 -> 2" in capsys.readouterr().err
    assert main(["show", "latest"]) == 0
    assert "1: as the recipe says: out_of_memory after 2 steps" in capsys.readouterr().out


def test_rows_that_have_moved_are_the_same_rows(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "val"):
        (tmp_path / f"{name}.jsonl").rename(tmp_path / f"moved_{name}.jsonl")
    assert main(["reproduce", "latest", "--dry-run"]) == 1
    assert "missing now" in capsys.readouterr().err
    words = ["--data", "moved_train.jsonl", "--val", "moved_val.jsonl"]
    assert main(["reproduce", "latest", "--dry-run", *words]) == 0
    assert "can be repeated here" in capsys.readouterr().out


def test_keys_that_recipes_have_only_since_the_run_are_no_difference(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trained.path / "run.json"
    document = json.loads(file.read_text())
    del document["resolved"]["recovery"]
    file.write_text(json.dumps(document))
    assert main(["reproduce", "latest", "--dry-run"]) == 0, capsys.readouterr().err
    assert "can be repeated here" in capsys.readouterr().out


def test_a_run_of_before_is_refused_with_the_reason(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trained.path / "run.json"
    document = json.loads(file.read_text())
    del document["resolved"]
    file.write_text(json.dumps(document))
    assert main(["reproduce", "latest"]) == 2
    assert "older palmswift" in capsys.readouterr().err
