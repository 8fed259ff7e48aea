"""A checkpoint that cannot be loaded, or not be gone on with, is known by its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_checkpoints import Numbers, write_adapter, write_model, write_tensors

from palmswift.launchers.checkpoint_files import missing_parts

ONE = {"a": Numbers("F32", [1.0])}


def test_what_ms_swift_leaves_is_whole(tmp_path: Path) -> None:
    assert missing_parts(write_adapter(tmp_path, 1), resumable=True) == []
    assert missing_parts(write_model(tmp_path, 2, ONE), resumable=True) == []


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_needs_its_weights_and_their_description(tmp_path: Path, name: str) -> None:
    folder = write_adapter(tmp_path, 1)
    (folder / name).unlink()
    assert [name in fault for fault in missing_parts(folder, resumable=False)] == [True]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_model_needs_weights_description_and_tokenizer(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path, 1, ONE)
    (folder / name).unlink()
    assert len(missing_parts(folder, resumable=False)) == 1


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_only_going_on_needs_the_trainer_s_state(tmp_path: Path, name: str) -> None:
    folder = write_adapter(tmp_path, 1)
    (folder / name).unlink()
    assert missing_parts(folder, resumable=False) == []
    assert missing_parts(folder, resumable=True) == [
        f"{name} is missing" + (" or damaged" if name.endswith("json") else "")
    ]


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "adapter_model.safetensors"])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, name: str) -> None:
    folder = write_adapter(tmp_path, 1)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    (fault,) = missing_parts(folder, resumable=True)
    assert name in fault


def test_every_shard_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    folder = write_model(tmp_path, 1, ONE)
    names = {"a": "model.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert missing_parts(folder, resumable=True) == ["model-2.safetensors is missing"]


def test_a_sharded_optimizer_is_kept_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, 1)
    (folder / "optimizer.pt").unlink()
    (folder / "global_step1").mkdir()
    assert missing_parts(folder, resumable=True) == []


def test_fsdp_gathers_the_optimizer_in_a_file_of_accelerates(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, 1)
    (folder / "optimizer.pt").rename(folder / "optimizer.bin")
    assert missing_parts(folder, resumable=True) == []
    (folder / "optimizer.bin").write_bytes((folder / "optimizer.bin").read_bytes()[:-9])
    assert missing_parts(folder, resumable=True) == ["optimizer.bin is cut off"]


def test_mlx_keeps_the_optimizer_beside_its_own_form_of_the_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, 1)
    for name in ("optimizer.pt", "scheduler.pt"):
        (folder / name).unlink()
    state = folder / "mlx" / "optimizer.safetensors"
    state.parent.mkdir()
    assert missing_parts(folder, resumable=True) == ["optimizer.safetensors is missing"]
    write_tensors(state, {"step": Numbers("I64", [1])})
    assert missing_parts(folder, resumable=True) == []
    state.write_bytes(state.read_bytes()[:-1])
    assert len(missing_parts(folder, resumable=True)) == 1


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert missing_parts(tmp_path / "checkpoint-9", resumable=True) == ["checkpoint-9 is not there"]
