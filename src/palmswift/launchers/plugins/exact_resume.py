"""Lets a training that was cut off end as if it had not been: an ms-swift plugin for any training.

What it does, beside what transformers and ms-swift keep in a checkpoint:

- `exact_resume_RANK.json` in each checkpoint holds what is summed up since the last logged step
  (loss, token accuracy), so that the next logged numbers are those of all their steps, and whether
  an evaluation of that step is still due: it is then done before the training goes on.
- A sampler whose first batches are skipped shuffles for the epoch that it goes on in
  (accelerate's SkipBatchSampler has no `set_epoch`; with sequence parallelism ms-swift 4.6.0 still
  replays the first epoch, modelscope/ms-swift#10050).
- Random numbers of the training are its own: the seed of a data loader's workers comes from the
  epoch, and an evaluation leaves them as it found them. Otherwise workers that persist
  (`dataloader_num_workers` above 0) draw one number fewer than those of a training begun anew, and
  each dropout mask after that is another.
- The best checkpoint is looked for beside the one that is gone on from, so a run may be moved.
- A checkpoint is forced to the disk before `exact_resume.json`, with the length of each of its
  files, says that it is whole; only then are older ones let go, by step and not by the clock, each
  under another name first. At no time is there no whole checkpoint once there was one.

What it saves: the steps after an interruption are those that would have been taken. What it costs:
the wait for the disk at each save. Serving, merging and inference are as without it.

When it cannot act: numbers that a collator draws, GRPO's buffer of generated
answers and a checkpoint with `save_only_model` are not kept; asynchronous saving
(`use_flash_ckpt`) is left alone.

Settings: none.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy
import torch
from accelerate.data_loader import SkipBatchSampler
from swift.dataloader import DataLoaderShard
from swift.trainers.mixin import DataLoaderMixin, SwiftMixin
from swift.utils import get_logger
from transformers import Trainer, TrainerCallback
from transformers import trainer as trainer_module

SEAL = "exact_resume.json"
STATE = "exact_resume_{}.json"
_REMOVED = ".removed-"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_SEALED = (".safetensors", ".pt", ".pth", ".bin", ".distcp", "trainer_state.json")
"""Endings of files that are never written again once a checkpoint is whole."""


def gathered(trainer: Any) -> dict[str, Any]:
    """What the trainer has summed up since it last logged, as JSON."""
    metrics = trainer.custom_metrics["train"]
    sums = {
        name: [float(metric.state), int(metric.count)]
        for name, metric in metrics.items()
        if metric.count
    }
    return {
        "loss": float(trainer._tr_loss),
        "total_loss": float(trainer._total_loss_scalar),
        "last_logged": trainer._globalstep_last_logged,
        "metrics": sums,
        "stored_metrics": _stored(trainer),
        "evaluation_due": bool(getattr(trainer, "evaluation_due", False)),
    }


def _stored(trainer: Any) -> dict[str, list[float]]:
    """What the trainers of DPO and its like have listed since they last logged."""
    listed = getattr(trainer, "_stored_metrics", {}).get("train", {})
    return {name: [float(value) for value in values] for name, values in listed.items()}


def give_back(trainer: Any, state: dict[str, Any]) -> None:
    """Put into the trainer what `gathered` gave."""
    trainer._tr_loss += state["loss"]
    trainer._total_loss_scalar = state["total_loss"]
    trainer._globalstep_last_logged = state["last_logged"]
    for name, (total, count) in state["metrics"].items():
        metric = trainer.custom_metrics["train"][name]
        metric.state, metric.count = total, count
    for name, values in state["stored_metrics"].items():
        trainer._stored_metrics["train"][name].extend(values)
    trainer.evaluation_due = state["evaluation_due"]


def write_whole(path: Path, document: Any) -> None:
    """Write JSON that is there wholly or not at all, on the disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(document, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def seal(folder: Path, step: int) -> None:
    """Force all files of a checkpoint to the disk, then say in it that it is whole."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    for path in [*files, folder, folder.parent]:
        _to_disk(path)
    lengths = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in files
        if path.name.endswith(_SEALED)
    }
    write_whole(folder / SEAL, {"step": step, "files": lengths})
    _to_disk(folder)


def _to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rotate(folder: Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints by step over `limit`, never the newest and never the best.

    One is renamed before its files go, so that a half removed one is not taken for torn.
    """
    for left in folder.glob(f"{_REMOVED}*"):
        shutil.rmtree(left, ignore_errors=True)
    if not limit or limit < 1:
        return
    steps = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and (match := _CHECKPOINT.fullmatch(path.name))
    }
    kept = {max(steps)} | {step for step, path in steps.items() if best and _same(path, best)}
    over = len(steps) - max(limit, len(kept))
    for step in sorted(steps.keys() - kept)[: max(over, 0)]:
        aside = steps[step].with_name(f"{_REMOVED}{steps[step].name}")
        steps[step].rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _same(path: Path, other: str) -> bool:
    return path.name == Path(other).name and path.resolve() == Path(other).resolve()


class ExactResume(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Gives the trainer back what the checkpoint that it goes on from had gathered."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The trainer's own state has just been loaded."""
        if not args.resume_from_checkpoint or state.global_step == 0:
            return
        begun = Path(args.resume_from_checkpoint)
        if state.best_global_step:
            beside = begun.with_name(f"checkpoint-{state.best_global_step}")
            if beside.is_dir():
                state.best_model_checkpoint = str(beside)
        kept = begun / STATE.format(args.process_index)
        if kept.is_file() and not args.resume_only_model:
            give_back(self.trainer, json.loads(kept.read_text(encoding="utf-8")))


@contextlib.contextmanager
def _numbers_kept() -> Iterator[None]:
    """Leave the random numbers of this process as they are before the block."""
    python, arrays, cpu = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    cards = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)
        torch.set_rng_state(cpu)
        if cards:
            torch.cuda.set_rng_state_all(cards)


@contextlib.contextmanager
def _rotation_later() -> Iterator[list[dict[str, Any]]]:
    """Keep transformers from removing checkpoints; the calls that it would have made."""
    calls: list[dict[str, Any]] = []

    def remember(**named: Any) -> None:
        calls.append(named)

    with patch.object(trainer_module, "rotate_checkpoints", remember):
        yield calls


def _install() -> None:
    """Act on `swift sft`, `pt` and `rlhf`; no other command trains."""
    if not hasattr(Trainer, "_run_epoch"):
        get_logger().warning(
            "exact_resume: this transformers is older than 5; a training that is gone on with "
            "takes the same steps, but may log other means and keep other checkpoints"
        )
        return
    train, save = SwiftMixin.train, SwiftMixin._save_checkpoint
    save_rng, load_rng = Trainer._save_rng_state, Trainer._load_rng_state
    evaluate = Trainer._evaluate

    @functools.wraps(train)
    def train_exactly(self: Any, *args: Any, **named: Any) -> Any:
        self.add_callback(ExactResume(self))
        return train(self, *args, **named)

    @functools.wraps(evaluate)
    def evaluate_apart(self: Any, *args: Any, **named: Any) -> Any:
        with _numbers_kept():
            return evaluate(self, *args, **named)

    @functools.wraps(save)
    def save_checkpoint(self: Any, *args: Any, **named: Any) -> Any:
        if self.args.use_flash_ckpt:
            return save(self, *args, **named)
        with _rotation_later() as later:
            saved = save(self, *args, **named)  # it ends with a barrier: all ranks have written
        for call in later:  # on the rank that saves, alone
            folder = Path(call["output_dir"])
            step = self.state.global_step
            seal(folder / f"checkpoint-{step}", step)
            rotate(folder, call["save_total_limit"], call["best_model_checkpoint"])
        return saved

    @functools.wraps(save_rng)
    def save_rng_state(self: Any, output_dir: str) -> None:
        save_rng(self, output_dir)
        save_gathered(self, output_dir)

    def save_gathered(self: Any, output_dir: str) -> None:
        if not hasattr(self, "_tr_loss"):  # PPO has a loop of its own
            return
        write_whole(Path(output_dir) / STATE.format(self.args.process_index), gathered(self))

    @functools.wraps(load_rng)
    def load_rng_state(self: Any, checkpoint: str | None) -> None:
        load_rng(self, checkpoint)
        if getattr(self, "evaluation_due", False):
            self.evaluation_due = False
            get_logger().info(f"exact_resume: the evaluation of step {self.state.global_step}")
            metrics = self._evaluate(None, None)
            self._determine_best_metric(metrics=metrics, trial=None)

    SwiftMixin.train = train_exactly
    SwiftMixin._save_checkpoint = save_checkpoint
    SwiftMixin.save_gathered = save_gathered
    Trainer._save_rng_state, Trainer._load_rng_state = save_rng_state, load_rng_state
    Trainer._evaluate = evaluate_apart
    _order_by_epoch()


def _order_by_epoch() -> None:
    """Let rows and workers' seeds follow from the epoch, whether its first batches are skipped."""
    load, set_epoch = DataLoaderMixin.get_train_dataloader, DataLoaderShard.set_epoch

    @functools.wraps(load)
    def get_train_dataloader(self: Any, *args: Any, **named: Any) -> Any:
        loader = load(self, *args, **named)
        if isinstance(loader, DataLoaderShard):
            loader.generator = torch.Generator()
            loader.first_seed = self.args.seed
            loader.generator.manual_seed(loader.first_seed)
        return loader

    @functools.wraps(set_epoch)
    def set_epoch_of_loader(self: Any, epoch: int) -> None:
        set_epoch(self, epoch)
        if hasattr(self, "first_seed"):
            self.generator.manual_seed(self.first_seed + epoch)

    def set_epoch_behind(self: Any, epoch: int) -> None:
        if hasattr(self.batch_sampler, "set_epoch"):
            self.batch_sampler.set_epoch(epoch)

    DataLoaderMixin.get_train_dataloader = get_train_dataloader
    DataLoaderShard.set_epoch = set_epoch_of_loader
    SkipBatchSampler.set_epoch = set_epoch_behind


_install()
