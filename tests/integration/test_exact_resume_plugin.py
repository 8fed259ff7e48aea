"""The plugin exact_resume with ms-swift's and accelerate's own samplers, and with real files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import SkipBatchSampler
from swift.dataloader import BatchSamplerShard, DataLoaderShard
from swift.sequence_parallel import SequenceParallelSampler

from palmswift.launchers.checkpoint_survey import SEAL, survey
from palmswift.launchers.plugins import exact_resume

ROWS, EPOCH, SKIPPED = 12, 2, 3


def _first_of(loader: Any, epoch: int) -> list[int]:
    loader.set_epoch(epoch)
    return [int(row) for batch in loader for row in batch]


def _by_sequence_parallelism(skipped: int) -> DataLoaderShard:
    """A loader as ms-swift's `get_sp_dataloader` makes it."""
    sampler: Any = SequenceParallelSampler.__new__(SequenceParallelSampler)
    # What its constructor asks a process group for, and there is one process here.
    vars(sampler).update(rank=0, world_size=1, dataset=range(ROWS), shuffle=True, seed=1, epoch=0)
    vars(sampler).update(round_up=True, num_samples=ROWS, total_size=ROWS)
    if skipped:
        sampler = SkipBatchSampler(sampler, skip_batches=skipped)
    return DataLoaderShard(list(range(ROWS)), batch_size=1, sampler=sampler)


def _by_batches(skipped: int) -> DataLoaderShard:
    """A loader as ms-swift's `get_train_dataloader` makes it."""
    sampler: Any = BatchSamplerShard(ROWS, 1, shuffle=True, drop_last=False, data_seed=1)
    if skipped:
        sampler = SkipBatchSampler(sampler, skip_batches=skipped)
    return DataLoaderShard(list(range(ROWS)), batch_sampler=sampler)


@pytest.mark.parametrize("make", [_by_sequence_parallelism, _by_batches])
def test_a_loader_that_skips_goes_on_in_the_order_of_its_epoch(make: Any) -> None:
    whole = _first_of(make(0), EPOCH)
    assert whole != _first_of(make(0), 0)
    assert _first_of(make(SKIPPED), EPOCH) == whole[SKIPPED:]


def test_without_the_plugin_sequence_parallelism_goes_back_to_the_first_epochs_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, whole = (_first_of(_by_sequence_parallelism(0), epoch) for epoch in (0, EPOCH))
    monkeypatch.delattr(SkipBatchSampler, "set_epoch")
    assert _first_of(_by_sequence_parallelism(SKIPPED), EPOCH) == first[SKIPPED:] != whole[SKIPPED:]


def _checkpoint(training: Path, step: int) -> Path:
    folder = training / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    torch.save({"step": step}, folder / "optimizer.pt")
    return folder


def test_old_checkpoints_go_by_step_whatever_their_times_say(tmp_path: Path) -> None:
    for step in (10, 20, 100):
        os.utime(_checkpoint(tmp_path, step), (1_000_000 - step, 1_000_000 - step))
    exact_resume.rotate(tmp_path, 2, str(tmp_path / "checkpoint-10"))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint-10", "checkpoint-100"]
    exact_resume.rotate(tmp_path, 1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-100"]
    exact_resume.rotate(tmp_path, None, None)
    assert (tmp_path / "checkpoint-100").is_dir()


def test_a_seal_names_the_length_of_each_file_and_torn_ones_are_found_by_it(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, 10)
    exact_resume.seal(folder, 10)
    assert (folder / SEAL).is_file()
    with (folder / "optimizer.pt").open("ab") as stream:
        stream.write(b"more")
    (found,) = survey(tmp_path)
    assert found.fault


def test_random_numbers_are_those_from_before_a_block_that_drew_some() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with exact_resume._numbers_kept():
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)
