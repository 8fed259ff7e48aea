"""Holds several processes to one training: an ms-swift plugin that every launch of several loads.

What it does: before the first step each process checks that it has found the others, that what
splits the weights (DeepSpeed, FSDP2) is really on, and that all have the same rows and settings.
At each save and at the end, processes that keep whole weights compare them. Where anything differs
the training stops with a message that begins with `one_training:`.

What for: ms-swift's processes train side by side without a word when they have not found each other
(on a CPU without `--use_cpu true --ddp_backend gloo`), each on its share of the rows, and the first
one's model is kept; nodes with other rows or another batch do so too.

On the CPU, where nobody trains for long, it also does what accelerate does on a GPU alone:
DeepSpeed is told of the processes before the weights are loaded (ZeRO-3 stops otherwise), and FSDP2
is switched on (it would be left out in silence). Ray's driver, which trains nothing, is a world of
one there: the arguments that it shares with its workers (`ddp_backend: gloo`) stop it otherwise.

What it saves: nothing. What it costs: one exchange of a few hundred bytes at the start, and a sum
over the trained weights at each save.

Settings: none. Serving, merging and inference are as without it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from swift.arguments import SftArguments
from swift.ray_utils import RayHelper
from swift.trainers.mixin import SwiftMixin
from transformers import TrainerCallback

COMPARED = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "max_steps"),
    *("num_train_epochs", "learning_rate", "lr_scheduler_type", "seed", "data_seed", "optim"),
)
"""Arguments that make one training of several processes only when they are the same on all."""


class Apart(RuntimeError):
    """The processes do not make one training."""

    def __init__(self, what: str) -> None:
        super().__init__(f"one_training: {what}")


def require_others(world: int, found: int) -> None:
    """`Apart` unless the Trainer counts as many processes as were started."""
    if found != world:
        raise Apart(
            f"{world} processes were started and the Trainer counts {found}: each would train a"
            " model of its own. On a CPU that is what happens without use_cpu: true and"
            " ddp_backend: gloo"
        )


def require_strategy(wanted: str, on: bool) -> None:
    """`Apart` unless what is to split the weights does so."""
    if wanted and not on:
        raise Apart(f"{wanted} was asked for and is not on: every process would keep everything")


def require_same(facts: dict[str, Any]) -> None:
    """`Apart` unless all processes have the same facts; names what differs, and where."""
    gathered: list[dict[str, Any] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, facts)
    different = difference([found or {} for found in gathered])
    if different:
        raise Apart(f"the processes differ: {different}")


def difference(gathered: Sequence[dict[str, Any]]) -> str:
    """What is not the same in all: `name: value on process N, ...`; empty when nothing."""
    parts = []
    for name in gathered[0]:
        values = [found.get(name) for found in gathered]
        if any(value != values[0] for value in values):
            told = ", ".join(f"{value} on process {rank}" for rank, value in enumerate(values))
            parts.append(f"{name}: {told}")
    return "; ".join(parts)


def digest(files: Sequence[str]) -> str:
    """Of the rows; a name that is no file here (a hub's data set) counts by its name."""
    hashed = hashlib.sha256()
    for name in files:
        path = Path(name)
        hashed.update(path.read_bytes() if path.is_file() else name.encode())
    return hashed.hexdigest()[:16]


def weights_sum(model: Any) -> str:
    """A sum over the trained weights that tells two models apart (NaN is told as such)."""
    total = torch.zeros(2, dtype=torch.float64)
    for parameter in model.parameters():
        if parameter.requires_grad:
            values = parameter.detach().double()
            total += torch.stack([values.sum(), values.abs().sum()]).cpu()
    return repr(total.tolist())


class SameWeights(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Compares the weights of processes that each have all of them."""

    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The checkpoint is the first process's, and should be everybody's."""
        require_same({f"weights after step {state.global_step}": weights_sum(named["model"])})

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The result, where no save came after the last step."""
        self.on_save(args, state, control, **named)


def is_ray_driver() -> bool:
    """Whether this process only asks Ray's workers to train."""
    return "ray" in sys.modules and RayHelper.ray_inited() and not RayHelper.is_worker()


def be_alone() -> None:
    """Make this process a world of one; its workers are told their own places."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _check(trainer: Any) -> None:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    require_others(world, trainer.accelerator.num_processes)
    args = trainer.args
    require_strategy("DeepSpeed" if args.deepspeed else "", trainer.is_deepspeed_enabled)
    require_strategy("FSDP2" if args.fsdp else "", trainer.is_fsdp_enabled)
    if world == 1:
        return
    facts = {name: str(getattr(args, name, None)) for name in COMPARED}
    facts["rows"] = trainer.palmswift_rows
    facts["resumes from"] = Path(args.resume_from_checkpoint or "the start").name
    require_same(facts)
    if not args.deepspeed and not args.fsdp:
        trainer.add_callback(SameWeights())


def _install() -> None:
    """Act on `swift sft`, `pt` and `rlhf`; no other command trains."""
    train, begin = SwiftMixin.train, SftArguments._init_deepspeed
    make_state = AcceleratorState.__init__
    rows: list[str] = []

    @functools.wraps(train)
    def train_as_one(self: Any, *args: Any, **named: Any) -> Any:
        self.palmswift_rows = rows[-1] if rows else ""
        _check(self)
        return train(self, *args, **named)

    @functools.wraps(begin)
    def begin_deepspeed(self: Any) -> None:
        rows.append(digest([*self.dataset, *self.val_dataset]))
        begin(self)
        if self.use_cpu and is_ray_driver():
            be_alone()
            return
        if self.deepspeed and self.use_cpu and "RANK" in os.environ:
            import deepspeed

            deepspeed.init_distributed(dist_backend="gloo")

    @functools.wraps(make_state)
    def make_state_on_cpu(self: Any, *args: Any, **named: Any) -> None:
        make_state(self, *args, **named)
        plugin = named.get("fsdp_plugin") or self.__dict__.get("fsdp_plugin")
        if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            # accelerate/state.py lists the devices that FSDP is for, and leaves the CPU out; what
            # the process group is of is written over the shared state by each new instance.
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = plugin

    SwiftMixin.train = train_as_one
    SftArguments._init_deepspeed = begin_deepspeed
    AcceleratorState.__init__ = make_state_on_cpu


_install()
