"""What a recipe's `launch` section becomes: ms-swift's arguments, environment and plugins."""

from __future__ import annotations

from pathlib import Path

from palmswift.paths import project_path, project_root
from palmswift.recipes.launch import LaunchSettings, accumulation_of_each
from palmswift.recipes.recipe import Recipe, SwiftValue

CHECKER = "one_training"
"""The shipped plugin that holds several processes to one training."""

RANK_LOGS = "ranks"
"""Folder under a run's logs/ with the output of every process but the first of a node."""

FSDP_FILES = {"fsdp2": "fsdp2.json", "fsdp2_offload": "fsdp2_offload.json"}
"""In launchers/templates: ms-swift's own preset leaves shards that nothing can serve."""


def launch_arguments(recipe: Recipe) -> dict[str, SwiftValue]:
    """ms-swift's arguments that follow from `launch`, in place of the recipe's own values."""
    launch = recipe.launch
    arguments: dict[str, SwiftValue] = {}
    if not launch.is_distributed:
        return arguments
    if launch.world > 1:
        each = accumulation_of_each(recipe.swift, launch.world)
        if each is not None:  # one that does not divide is refused with the recipe
            arguments["gradient_accumulation_steps"] = each
    if not recipe.needs_gpu or recipe.swift.get("use_cpu") is True:
        # Without these two the processes do not find each other, and say nothing.
        arguments |= {"use_cpu": True, "ddp_backend": "gloo"}
    return arguments | _strategy_arguments(launch)


def _strategy_arguments(launch: LaunchSettings) -> dict[str, SwiftValue]:
    own = launch.strategy_file
    if launch.strategy in FSDP_FILES:
        shipped = project_root() / "launchers" / "templates" / FSDP_FILES[launch.strategy]
        file = project_path(own) if own else shipped
        # FSDP2 checkpoints activations itself; both at once stop the Trainer.
        return {"fsdp": str(file.absolute()), "gradient_checkpointing": False}
    if launch.strategy != "ddp":
        return {"deepspeed": str(project_path(own).absolute()) if own else launch.strategy}
    return {}


def launch_environment(recipe: Recipe) -> dict[str, str]:
    """Variables by which `swift` starts torchrun, and its processes find those of other nodes."""
    launch = recipe.launch
    environment: dict[str, str] = {}
    if not launch.is_distributed or launch.scheduler == "ray":
        return environment
    environment["NPROC_PER_NODE"] = str(launch.processes)
    if launch.nodes > 1:
        environment |= {"NNODES": str(launch.nodes), "NODE_RANK": str(launch.node_rank)}
    if launch.master:
        host, _, port = launch.master.rpartition(":")
        environment |= {"MASTER_ADDR": host, "MASTER_PORT": port}
    return environment


def rank_log_environment(launch: LaunchSettings, logs: Path) -> dict[str, str]:
    """torchrun's own settings that keep each further process's output in a file of its own.

    The node's first process stays in the training's log, so that it reads as one process's does.
    """
    if launch.processes == 1 or launch.scheduler == "ray":
        return {}
    redirects = ",".join(f"{rank}:3" for rank in range(1, launch.processes))
    return {"PET_LOG_DIR": str(logs / RANK_LOGS), "PET_REDIRECTS": redirects}
