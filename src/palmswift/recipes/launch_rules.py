"""What of a recipe's `launch` section does not go together with itself or with the training.

ms-swift, DeepSpeed, accelerate and Unsloth find most of this out after minutes of loading, on every
card at once, or train something else without a word. Each rule was read in the source that its
comment names: ms-swift 4.6.0, transformers 5.19, accelerate 1.15, DeepSpeed 0.19, peft 0.20.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from palmswift.errors import Problem
from palmswift.recipes.launch import LaunchSettings, accumulation_of_each, accumulation_of_one
from palmswift.recipes.rules import Settings

_ONE_CARD_PLUGINS = ("embedding_on_cpu", "checkpoint_offload", "tiled_mlp")
_MASTER = re.compile(r"[^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")


class Case(NamedTuple):
    """A recipe as the rules look at it."""

    launch: LaunchSettings
    swift: Settings
    on_gpu: bool
    plugins: tuple[str, ...]
    task: str

    @property
    def splits_weights(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return self.launch.strategy.startswith(("zero3", "fsdp2"))

    @property
    def uses_deepspeed(self) -> bool:
        """Whether DeepSpeed trains."""
        return self.launch.strategy.startswith("zero")

    def is_bnb(self, *bits: str) -> bool:
        """Whether bitsandbytes quantises, to one of these bits if any are named."""
        return self.swift.is_word("quant_method", "bnb") and (
            not bits or self.swift.is_word("quant_bits", *bits)
        )


class LaunchRule(NamedTuple):
    """A launch that does not work, or does not do what it says."""

    key: str
    """Under `launch`, where it is told."""
    broken: Callable[[Case], bool]
    what: str
    """May name a setting of the launch as `{name}`."""
    remedy: str


def _bits_unsharded(c: Case) -> bool:
    storage = c.swift["bnb_4bit_quant_storage"]
    return (
        c.launch.strategy.startswith("fsdp2")
        and c.is_bnb("4")
        and str(storage) not in ("bfloat16", "float16", "float32")
    )


def _no_meeting_point(c: Case) -> bool:
    return c.launch.nodes > 1 and c.launch.scheduler == "local" and c.launch.master is None


def _bad_master(c: Case) -> bool:
    return c.launch.master is not None and not _MASTER.fullmatch(c.launch.master)


RULES = (
    LaunchRule(
        "master",
        _no_meeting_point,
        "{nodes} nodes need a meeting point that all of them reach",
        "write master: HOST:29500 with node 0's address, the same on every node",
    ),
    LaunchRule(
        "master",
        _bad_master,
        "master is {master!r}, which is not HOST:PORT",
        "write node 0's address and a free port of it, such as 192.168.1.10:29500",
    ),
    LaunchRule(
        "strategy_file",
        lambda c: c.launch.strategy_file is not None and c.launch.strategy == "ddp",
        "strategy_file is not read by strategy ddp",
        "write the strategy that the file is for: zero2, zero3 or fsdp2",
    ),
    # deepspeed/runtime/engine.py on a CPU: float32 stops in the first step, bfloat16 trains
    LaunchRule(
        "strategy",
        lambda c: c.uses_deepspeed
        and not c.on_gpu
        and not c.swift.is_word("torch_dtype", "bfloat16"),
        "strategy {strategy} trains on a CPU in bfloat16 alone",
        "write swift.torch_dtype: bfloat16, or strategy: ddp",
    ),
    # torch/distributed/fsdp/_fully_shard/_fsdp_param.py: pin_memory() wants an accelerator
    LaunchRule(
        "strategy",
        lambda c: c.launch.strategy == "fsdp2_offload" and not c.on_gpu,
        "strategy fsdp2_offload moves parts from a GPU to host memory, and this recipe has no GPU",
        "write strategy: fsdp2",
    ),
    # transformers/modeling_utils.py get_init_context: no zero.Init for quantised weights
    LaunchRule(
        "strategy",
        lambda c: c.launch.strategy.startswith("zero3") and c.swift["quant_method"] is not None,
        "strategy {strategy} loads quantised weights whole on every card, so nothing is saved, and"
        " DeepSpeed cannot split their packed numbers",
        "write strategy: ddp or zero2 (4-bit weights on each card), or fsdp2 with"
        " swift.bnb_4bit_quant_storage: bfloat16",
    ),
    # accelerate/utils/fsdp_utils.py fsdp2_prepare_model: "Excluding from FSDP2 sharding"
    LaunchRule(
        "strategy",
        _bits_unsharded,
        "strategy {strategy} splits 4-bit weights only when they are stored as floats; as they are,"
        " every card would hold all of them",
        "write swift.bnb_4bit_quant_storage: bfloat16",
    ),
    LaunchRule(
        "strategy",
        lambda c: c.launch.strategy.startswith("fsdp2") and c.is_bnb("8"),
        "strategy {strategy} cannot split bitsandbytes' 8-bit weights (torch.int8 parameters)",
        "write strategy: ddp, or quantise to 4 bits with swift.bnb_4bit_quant_storage: bfloat16",
    ),
    # torch/distributed/tensor: bitsandbytes' kernels take plain tensors, no DTensor
    LaunchRule(
        "strategy",
        lambda c: c.launch.strategy.startswith("fsdp2") and _bnb_optimizer(c),
        "strategy {strategy} hands split tensors to the optimizer, which bitsandbytes' do not take",
        "write swift.optim: adamw_torch_fused",
    ),
    # deepspeed/runtime/zero/utils.py is_zero_supported_optimizer; its state would be on the CPU
    LaunchRule(
        "strategy",
        lambda c: c.uses_deepspeed and c.launch.strategy.endswith("_offload") and _bnb_optimizer(c),
        "strategy {strategy} keeps the optimizer's state on the CPU, where bitsandbytes has no"
        " 8-bit optimizer",
        "write swift.optim: adamw_torch",
    ),
    # transformers/trainer.py, swift/arguments/sft_args.py _check_fsdp2_compatibility
    LaunchRule(
        "strategy",
        lambda c: c.launch.strategy != "ddp"
        and c.swift["save_only_model"] is True
        and c.swift["load_best_model_at_end"] is True,
        "strategy {strategy} cannot load the best model back from checkpoints of weights alone",
        "write swift.save_only_model: false, or swift.load_best_model_at_end: false",
    ),
    # transformers/trainer.py: "`auto_find_batch_size` isn't supported yet with DeepSpeed Zero-3"
    LaunchRule(
        "strategy",
        lambda c: c.launch.strategy.startswith("zero3") and c.swift["auto_find_batch_size"] is True,
        "strategy {strategy} does not go with auto_find_batch_size",
        "take auto_find_batch_size away",
    ),
    # swift/optimizers and callbacks work on whole matrices of one process
    LaunchRule(
        "strategy",
        lambda c: c.splits_weights
        and (c.swift["use_galore"] is True or bool(c.swift["lisa_activated_layers"])),
        "strategy {strategy} leaves a process parts of matrices; GaLore and LISA want whole ones",
        "write strategy: ddp, or take GaLore or LISA away",
    ),
    # torch/nn/parallel/distributed.py: all parameters of a module on devices of one kind
    LaunchRule(
        "processes",
        lambda c: c.launch.is_distributed and any(p in c.plugins for p in _ONE_CARD_PLUGINS),
        "the plugins embedding_on_cpu, checkpoint_offload and tiled_mlp are made for one card and"
        " one process",
        "take them out of plugins; strategy: zero2_offload or fsdp2_offload moves to host memory",
    ),
    # swift/model/register.py load_by_unsloth and swift/pipelines/train/tuner.py
    LaunchRule(
        "strategy",
        lambda c: c.swift.is_word("tuner_backend", "unsloth") and c.launch.strategy != "ddp",
        "Unsloth's kernels want whole weights; strategy {strategy} splits them",
        "write strategy: ddp, or swift.tuner_backend: peft",
    ),
    LaunchRule(
        "device",
        lambda c: c.launch.device == "npu" and not c.on_gpu,
        "device npu in a recipe for the CPU (budget.gpu_mib is 0)",
        "write budget.gpu_mib, the NPU's memory, or take launch.device away",
    ),
    # bitsandbytes, liger-kernel and Unsloth have no kernels for Ascend
    LaunchRule(
        "device",
        lambda c: c.launch.device == "npu" and (c.is_bnb() or _bnb_optimizer(c)),
        "bitsandbytes does not run on an NPU",
        "take quant_method and its bits away, and write swift.optim: adamw_torch",
    ),
    LaunchRule(
        "device",
        lambda c: c.launch.device == "npu"
        and (c.swift["use_liger_kernel"] is True or c.swift.is_word("tuner_backend", "unsloth")),
        "Liger and Unsloth are Triton kernels for GPUs, not for an NPU",
        "write swift.use_liger_kernel: false and swift.tuner_backend: peft",
    ),
    LaunchRule(
        "scheduler",
        lambda c: c.launch.engine == "mlx" and c.launch.scheduler != "local",
        "mlx trains on the Mac that it is called on, not through {scheduler}",
        "write scheduler: local",
    ),
    LaunchRule(
        "engine",
        lambda c: c.launch.engine == "mlx" and c.launch.is_distributed,
        "mlx trains in one process here",
        "write processes: 1, nodes: 1 and strategy: ddp",
    ),
    # swift/ray_utils/base.py: workers and their master are the cluster's to place
    LaunchRule(
        "scheduler",
        lambda c: c.launch.scheduler == "ray" and not c.on_gpu,
        "ms-swift's Ray entry gives every worker a GPU of the cluster",
        "write scheduler: local, or run a recipe that needs a GPU",
    ),
    LaunchRule(
        "scheduler",
        lambda c: c.launch.scheduler == "ray" and c.launch.strategy != "ddp",
        "strategy {strategy} through Ray has not been seen to work",
        "write scheduler: local or slurm, or strategy: ddp",
    ),
)  # fmt: skip
"""In the order in which they are told."""


def _bnb_optimizer(c: Case) -> bool:
    return bool(re.search(r"8bit|^paged_|bnb", str(c.swift["optim"])))


def given_by_launch(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ms-swift that the rules on arguments ask for, and that `launch` gives."""
    launch = values.get("launch")
    strategy = launch.get("strategy") if isinstance(launch, dict) else None
    if not isinstance(strategy, str) or strategy == "ddp":
        return {}
    return {"fsdp" if strategy.startswith("fsdp2") else "deepspeed": strategy}


def launch_problems(
    values: Mapping[str, Any], settings: Settings, place: Callable[[str], str]
) -> Iterator[Problem]:
    """What does not go together in a recipe's launch; `place` says where a key of it stands."""
    try:
        launch = LaunchSettings.model_validate(values.get("launch") or {})
    except ValidationError:
        return  # told by the shape check
    budget, plugins = values.get("budget"), values.get("plugins")
    case = Case(
        launch=launch,
        swift=settings,
        on_gpu=bool(budget.get("gpu_mib")) if isinstance(budget, dict) else False,
        plugins=tuple(map(str, plugins)) if isinstance(plugins, list) else (),
        task=str(values.get("task", "sft")),
    )
    for rule in RULES:
        if rule.broken(case):
            what = rule.what.format_map(launch.model_dump())
            yield Problem(f"launch.{rule.key}: {what}", place(rule.key), rule.remedy)
    yield from _batch_problems(case, place)


def _batch_problems(case: Case, place: Callable[[str], str]) -> Iterator[Problem]:
    """The rows of a step stay the same: the accumulation is divided by the processes."""
    launch, swift = case.launch, case.swift
    if accumulation_of_each(swift.said, launch.world) is not None:
        return
    rows = swift["per_device_train_batch_size"] or 1
    one = accumulation_of_one(swift.said)
    yield Problem(
        f"launch.processes: {launch.world} processes cannot share the {rows} x {one} rows of a step"
        f" evenly: gradient_accumulation_steps ({one}) is divided by the number of processes",
        place("processes"),
        _other_batch(rows, one, launch.world),
    )


def _other_batch(rows: int, one: int, world: int) -> str:
    if rows % world == 0:
        return (
            f"write swift.gradient_accumulation_steps: {one * world} and"
            f" swift.per_device_train_batch_size: {rows // world}, which is the same batch"
        )
    near = max(world, round(one / world) * world)
    return f"write swift.gradient_accumulation_steps: {near}, which makes it {rows * near} rows"
