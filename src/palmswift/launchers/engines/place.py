"""Puts a launch on this machine: which node it is, where the nodes meet, which cards it takes."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from palmswift.errors import InputError
from palmswift.recipes.recipe import Recipe
from palmswift.setup.gpus import ask_gpus

NODE_VARIABLE = "PALMSWIFT_NODE_RANK"
MASTER_VARIABLE = "PALMSWIFT_MASTER"
"""By which a scheduler's job says what no recipe can know: the node's number, and node 0."""

LOOPBACK = "127.0.0.1"


def is_in_job(environment: Mapping[str, str] | None = None) -> bool:
    """Whether a scheduler has started us, so that we train instead of asking it to."""
    return NODE_VARIABLE in (os.environ if environment is None else environment)


def placed(recipe: Recipe) -> Recipe:
    """The recipe with this node's number, the meeting point, and the cards of this machine.

    A free port is taken where one machine trains alone, so that two trainings on it do not meet.
    `InputError` for a node number that is none.
    """
    launch = recipe.launch
    changes: dict[str, object] = {}
    if is_in_job():
        changes["node_rank"] = _node_rank(os.environ[NODE_VARIABLE], launch.nodes)
    if master := os.environ.get(MASTER_VARIABLE):
        changes["master"] = master
    elif launch.is_distributed and launch.nodes == 1 and launch.master is None:
        changes["master"] = f"{LOOPBACK}:{free_port()}"
    env = {**cards_environment(recipe), **recipe.env}
    return recipe.model_copy(update={"launch": launch.model_copy(update=changes), "env": env})


def _node_rank(said: str, nodes: int) -> int:
    if said.isdecimal() and int(said) < nodes:
        return int(said)
    raise InputError(f"{NODE_VARIABLE} is {said!r}; with {nodes} nodes it is 0 to {nodes - 1}")


def free_port() -> int:
    """A TCP port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    return int(port)


def cards_environment(recipe: Recipe) -> dict[str, str]:
    """The roomiest cards, one for each process, where the machine has more than that.

    ms-swift would put one process's layers on all cards (swift/utils/env.py: is_mp), which Liger,
    DeepSpeed and FSDP refuse. Cards that the user has chosen are left as they are.
    """
    if not recipe.needs_gpu or recipe.launch.device != "cuda":
        return {}
    gpus = ask_gpus().gpus
    chosen = {"CUDA_VISIBLE_DEVICES"} & {*os.environ, *recipe.env}
    if chosen or len(gpus) <= recipe.launch.processes:
        return {}
    by_room = sorted(range(len(gpus)), key=lambda index: -(gpus[index].free_mib or 0))
    taken = sorted(by_room[: recipe.launch.processes])
    # nvidia-smi counts by the bus; CUDA, unless told, puts the fastest first.
    visible = ",".join(map(str, taken))
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
