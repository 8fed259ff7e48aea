"""How a training is launched: who trains, how many processes, how weights are split, who starts it.

Four things that are often mixed up stand apart here: the engine (which program trains), the size
(processes and nodes), the strategy (how weights, gradients and optimizer state are split between
the processes) and the scheduler (who starts the processes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Engine = Literal["swift", "mlx"]
Strategy = Literal[
    "ddp", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload", "fsdp2", "fsdp2_offload"
]
Scheduler = Literal["local", "ray", "slurm", "kubernetes"]

EFFECTIVE_BATCH = 16
"""Rows a step that ms-swift aims at when gradient_accumulation_steps is not said."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlurmSettings(_Section):
    """What `sbatch` is asked for; the rest follows from `nodes` and `processes`."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str = "1-00:00:00"
    """Longest time, as days-hours:minutes:seconds."""
    gres: str | None = None
    """Per node; `gpu:PROCESSES` for a recipe that needs a GPU when null."""
    cpus_per_task: int | None = Field(default=None, ge=1)
    """CPU cores of a node's task; four for each process when null."""
    mem: str | None = None
    """Memory of a node, such as 64G; the partition's own when null."""
    grace: int = Field(default=120, ge=10)
    """Seconds before the time limit at which the training is told to save and stop."""
    requeue: bool = True
    """Queue the job again when it was preempted or its time was up, to go on where it stopped."""
    options: list[str] = Field(default_factory=list)
    """Further options of sbatch, such as `--constraint=a100`."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines that run first on the node, such as `module load cuda/12.8`."""


class KubernetesSettings(_Section):
    """What the Kubernetes job is made of."""

    image: str = "palmswift:latest"
    """A container image that has palmswift and ms-swift in its environment."""
    namespace: str = "default"
    claim: str = "palmswift"
    """A PersistentVolumeClaim that all nodes can write; it holds the project's folder."""
    mount: str | None = None
    """Where the claim is mounted; the project's own path on this machine when null."""
    resource: str | None = None
    """Of the device plug-in; nvidia.com/gpu or huawei.com/Ascend910 when null."""
    cpu: str = "4"
    memory: str = "16Gi"
    shm: str = "8Gi"
    """Size of /dev/shm, through which NCCL and loading processes talk."""
    retries: int = Field(default=3, ge=0)
    """How often a failed pod is started again; it goes on from its last checkpoint."""
    service_account: str | None = None


class RaySettings(_Section):
    """The Ray cluster that ms-swift's own Ray entry trains in."""

    address: str = "auto"
    """Of a running cluster; `auto` is the one that this machine is a node of."""


class LaunchSettings(_Section):
    """Who trains, on how many processes, split how, and started by whom."""

    engine: Engine = "swift"
    """`mlx` trains with mlx_lm.lora, on a Mac's GPU (or slowly on a CPU)."""
    device: Literal["cuda", "npu"] = "cuda"
    """What a recipe that needs a GPU runs on; `npu` is Huawei's Ascend."""
    processes: int = Field(default=1, ge=1)
    """Training processes of a node, one for each GPU."""
    nodes: int = Field(default=1, ge=1)
    """Machines that train together; each runs the same command."""
    node_rank: int = Field(default=0, ge=0)
    """Which of the nodes this machine is, from 0; schedulers say it themselves."""
    master: str | None = None
    """HOST:PORT of node 0, where the nodes meet; a free port of this machine with one node."""
    strategy: Strategy = "ddp"
    """`ddp` keeps everything on every process; the others split optimizer state (`zero1`), and
    gradients (`zero2`), and weights (`zero3`, `fsdp2`); `_offload` keeps its part in host memory.
    """
    strategy_file: str | None = None
    """A DeepSpeed or FSDP2 JSON of your own in place of the strategy's, relative to the project."""
    scheduler: Scheduler = "local"
    """Who starts the processes: this command, a Ray cluster, Slurm, or Kubernetes."""
    ray: RaySettings = Field(default_factory=RaySettings)
    slurm: SlurmSettings = Field(default_factory=SlurmSettings)
    kubernetes: KubernetesSettings = Field(default_factory=KubernetesSettings)

    @model_validator(mode="after")
    def _rank_of_a_node(self) -> LaunchSettings:
        if self.node_rank >= self.nodes:
            raise ValueError(f"node_rank {self.node_rank} of {self.nodes} node(s): they begin at 0")
        return self

    @property
    def world(self) -> int:
        """Processes on all nodes together."""
        return self.processes * self.nodes

    @property
    def is_distributed(self) -> bool:
        """Whether processes have to find each other, even one alone with a strategy that splits."""
        return self.world > 1 or self.strategy != "ddp"

    @property
    def follows(self) -> bool:
        """Whether this machine helps node 0, which has the results."""
        return self.node_rank > 0


def accumulation_of_one(swift: Mapping[str, Any]) -> int:
    """gradient_accumulation_steps of the training in one process.

    What the recipe says, else what swift/trainers/arguments.py takes: enough for 16 rows.
    """
    said = swift.get("gradient_accumulation_steps")
    if isinstance(said, int) and not isinstance(said, bool):
        return said
    batch = swift.get("per_device_train_batch_size", 1)
    return math.ceil(EFFECTIVE_BATCH / batch) if isinstance(batch, int) and batch > 0 else 1


def accumulation_of_each(swift: Mapping[str, Any], world: int) -> int | None:
    """gradient_accumulation_steps of each of `world` processes, for the same rows a step.

    The one rule: a recipe's accumulation is divided by the number of processes. None when it does
    not divide, so that a step would be of other rows.
    """
    whole, rest = divmod(accumulation_of_one(swift), world)
    return whole if rest == 0 and whole > 0 else None
