"""Whole checkpoints are told from torn ones, whichever file was being written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support_checkpoints import Numbers, write_adapter, write_model

from palmswift.launchers.checkpoint_survey import SEAL, is_finished, set_aside, survey
from palmswift.launchers.run_folder import checkpoints
from palmswift.launchers.taking_up import cut_log

LAYER = {"layer.weight": Numbers("F32", [1.0, 2.0])}


def _seal(folder: Path) -> None:
    files = {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if path.suffix in (".safetensors", ".pt", ".pth")
    }
    (folder / SEAL).write_text(json.dumps({"step": 1, "files": files}))


def _faults(training: Path) -> list[str]:
    return [found.fault for found in survey(training)]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_file_that_was_cut_off_anywhere_makes_a_checkpoint_torn(
    tmp_path: Path, name: str, share: float
) -> None:
    folder = write_adapter(tmp_path, 4)
    assert _faults(tmp_path) == [""]
    os.truncate(folder / name, int((folder / name).stat().st_size * share))
    assert name in _faults(tmp_path)[0]
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "optimizer.pt", "scheduler.pt", "trainer_state.json"],
)
def test_a_file_that_is_missing_makes_a_checkpoint_torn(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path, 4, LAYER)
    assert _faults(tmp_path) == [""]
    (folder / name).unlink()
    assert name in _faults(tmp_path)[0]


def test_a_missing_shard_makes_a_checkpoint_torn(tmp_path: Path) -> None:
    folder = write_model(tmp_path, 4, LAYER)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"weight_map": {"layer.weight": "model-00001-of-00002.safetensors", "b": "second"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert _faults(tmp_path) == ["second is missing"]


def test_a_checkpoint_of_the_model_alone_needs_no_optimizer(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, 4)
    (folder / "optimizer.pt").unlink()
    (folder / "args.json").write_text('{"save_only_model": true}')
    assert _faults(tmp_path) == [""]


def test_after_a_sealed_checkpoint_one_without_a_seal_is_not_trusted(tmp_path: Path) -> None:
    write_adapter(tmp_path, 2)
    _seal(write_adapter(tmp_path, 4))
    write_adapter(tmp_path, 6)
    assert _faults(tmp_path) == ["", "", "its saving did not come to an end"]


def test_a_file_of_another_length_than_sealed_makes_a_checkpoint_torn(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, 4)
    _seal(folder)
    assert _faults(tmp_path) == [""]
    with (folder / "rng_state.pth").open("ab") as stream:
        stream.write(b"\0" * 7)
    assert "rng_state.pth has" in _faults(tmp_path)[0]
    (folder / SEAL).write_text('{"step": 4, "fil')
    assert _faults(tmp_path) == [f"{SEAL} is damaged"]


def test_weights_are_enough_for_one_that_is_not_gone_on_from(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, 4)
    _seal(folder)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).unlink()
    assert checkpoints(tmp_path) == []
    assert checkpoints(tmp_path, resumable=False) == [folder]


def test_checkpoints_are_sorted_by_step_and_nothing_else_counts(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        write_adapter(tmp_path, step)
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert [found.step for found in survey(tmp_path)] == [3, 20, 100]


def test_torn_ones_of_the_same_step_are_all_kept(tmp_path: Path) -> None:
    for _ in range(2):
        folder = write_adapter(tmp_path, 4)
        set_aside(folder, tmp_path / "torn")
    assert sorted(path.name for path in (tmp_path / "torn").iterdir()) == [
        "checkpoint-4",
        "checkpoint-4-2",
    ]


def test_the_last_step_is_known_and_a_later_end_makes_it_one_of_many(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, 4)
    state = folder / "trainer_state.json"
    state.write_text('{"global_step": 3, "max_steps": 4}')
    assert not is_finished(folder)
    state.write_text('{"global_step": 4, "max_steps": 4}')
    assert is_finished(folder)
    assert not is_finished(folder, lengthened_at=4)
    state.write_text("{}")
    assert not is_finished(folder)


def test_a_log_is_cut_to_whole_lines_of_the_steps_that_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "logging.jsonl"
    rows = [{"loss": 1.0, "global_step/max_steps": f"{step}/9"} for step in (1, 2, 3)]
    ends = {"train_loss": 1.0, "global_step/max_steps": "3/9"}
    text = "".join(json.dumps(row) + "\n" for row in [*rows, ends, {"log_history": []}])
    log.write_text(text + '{"loss": 0.5, "glo')
    cut_log(log, 2)
    assert log.read_text() == "".join(json.dumps(row) + "\n" for row in rows[:2])
    cut_log(tmp_path / "absent.jsonl", 2)
