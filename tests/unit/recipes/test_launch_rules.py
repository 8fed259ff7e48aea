"""Each launch that cannot work is told where it stands, and the nearest one that can passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_recipes import WHOLE, write_recipe

from palmswift.errors import Problem
from palmswift.recipes.check import check_recipe
from palmswift.recipes.launch import (
    LaunchSettings,
    accumulation_of_each,
    accumulation_of_one,
)
from palmswift.recipes.launch_rules import RULES
from palmswift.recipes.rules import Machine
from palmswift.recipes.source import read_recipe

BNB4 = "quant_method: bnb, quant_bits: 4"

PAIRS = [
    ("master", "meeting point", "nodes: 2", "nodes: 2, master: 10.0.0.1:29500"),
    ("master", "not HOST:PORT", "nodes: 2, master: here", "nodes: 2, master: here:29500"),
    (
        "strategy_file",
        "not read",
        "processes: 2, strategy_file: ds.json",
        "processes: 2, strategy: zero2, strategy_file: ds.json",
    ),
    (
        "strategy",
        "bfloat16 alone",
        "strategy: zero2 | torch_dtype: float32, fp16: false | cpu",
        "strategy: zero2 | torch_dtype: bfloat16 | cpu",
    ),
    (
        "strategy",
        "host memory",
        "strategy: fsdp2_offload | use_cpu: true | cpu",
        "strategy: fsdp2 | use_cpu: true | cpu",
    ),
    ("strategy", "quantised", f"strategy: zero3 | {BNB4}", f"strategy: zero2 | {BNB4}"),
    (
        "strategy",
        "4-bit",
        f"strategy: fsdp2 | {BNB4}",
        f"strategy: fsdp2 | {BNB4}, bnb_4bit_quant_storage: bfloat16",
    ),
    (
        "strategy",
        "8-bit",
        "strategy: fsdp2 | quant_method: bnb, quant_bits: 8",
        "strategy: ddp | quant_method: bnb, quant_bits: 8",
    ),
    (
        "strategy",
        "split tensors",
        "strategy: fsdp2 | optim: adamw_8bit",
        "strategy: fsdp2 | optim: adamw_torch_fused",
    ),
    (
        "strategy",
        "on the CPU",
        "strategy: zero2_offload | optim: adamw_8bit",
        "strategy: zero2_offload | optim: adamw_torch",
    ),
    (
        "strategy",
        "best model",
        "strategy: zero2 | save_only_model: true, load_best_model_at_end: true,"
        " eval_strategy: steps",
        "strategy: zero2 | save_only_model: true",
    ),
    (
        "strategy",
        "auto_find_batch_size",
        "strategy: zero3 | auto_find_batch_size: true",
        "strategy: zero2 | auto_find_batch_size: true",
    ),
    (
        "strategy",
        "GaLore",
        "strategy: zero3 | use_galore: true, tuner_type: full",
        "strategy: zero2 | use_galore: true, tuner_type: full",
    ),
    (
        "processes",
        "one card",
        "processes: 2 | | plugins: [tiled_mlp]",
        "processes: 1 | | plugins: [tiled_mlp]",
    ),
    (
        "strategy",
        "Unsloth",
        "strategy: zero3 | tuner_backend: unsloth",
        "processes: 2 | tuner_backend: unsloth",
    ),
    ("device", "for the CPU", "device: npu | use_cpu: true | cpu", "device: npu"),
    ("device", "bitsandbytes", f"device: npu | {BNB4}", "device: npu | optim: adamw_torch"),
    ("device", "Liger", "device: npu | use_liger_kernel: true", "device: npu"),
    ("scheduler", "mlx", "engine: mlx, scheduler: slurm", "engine: mlx"),
    ("engine", "one process", "engine: mlx, processes: 2", "engine: mlx"),
    ("scheduler", "gives every worker", "scheduler: ray | use_cpu: true | cpu", "scheduler: ray"),
    (
        "scheduler",
        "through Ray",
        "scheduler: ray, strategy: zero2",
        "scheduler: slurm, strategy: zero2",
    ),
]
"""Told at, a word of it, what breaks it, what does not: launch | swift | cpu or other keys."""


def _problems(folder: Path, settings: str) -> list[Problem]:
    launch, swift, rest = (*(part.strip() for part in settings.split(" |")), "", "")[:3]
    lines = [line for line in WHOLE.splitlines() if "lora_rank" not in line]
    if rest == "cpu":
        lines = [line.replace("gpu_mib: 8188", "gpu_mib: 0") for line in lines]
    elif rest:
        lines.append(rest)
    if "engine: mlx" in launch:
        at = lines.index("  id: Qwen/Qwen3-8B") + 1
        lines[at:at] = ["  source: huggingface"]
        swift = "optim: adamw_torch"
    said = [part.strip() for part in swift.split(",") if part.strip()]
    said += [] if "gradient_acc" in swift else ["gradient_accumulation_steps: 4"]
    names = {part.partition(":")[0] for part in said}
    lines = [line for line in lines if line.strip().partition(":")[0] not in names]
    at = lines.index("swift:") + 1
    lines[at:at] = [f"  {part}" for part in said]
    lines += ["launch:", *(f"  {part.strip()}" for part in launch.split(","))]
    path = write_recipe(folder, "\n".join(lines) + "\n")
    return check_recipe(read_recipe(path), Machine())


@pytest.mark.parametrize(("key", "word", "broken", "whole"), PAIRS)
def test_a_launch_that_cannot_work_is_told_and_its_neighbour_passes(
    tmp_path: Path, key: str, word: str, broken: str, whole: str
) -> None:
    told = [problem for problem in _problems(tmp_path, broken) if word in problem.what]
    assert len(told) == 1, _problems(tmp_path, broken)
    assert told[0].what.startswith(f"launch.{key}: ")
    assert told[0].remedy
    assert _problems(tmp_path, whole) == []


def test_every_rule_has_its_pair() -> None:
    assert len(RULES) == len(PAIRS)


@pytest.mark.parametrize(
    ("rows", "accumulation", "world", "remedy"),
    [
        (10, 1, 2, "gradient_accumulation_steps: 2 and swift.per_device_train_batch_size: 5"),
        (1, 16, 3, "gradient_accumulation_steps: 15, which makes it 15 rows"),
    ],
)
def test_rows_that_processes_cannot_share_are_refused_with_a_batch_that_they_can(
    tmp_path: Path, rows: int, accumulation: int, world: int, remedy: str
) -> None:
    swift = f"per_device_train_batch_size: {rows}, gradient_accumulation_steps: {accumulation}"
    (problem,) = _problems(tmp_path, f"processes: {world} | {swift}")
    assert problem.what.startswith("launch.processes: ")
    assert remedy in problem.remedy


@given(world=st.integers(1, 64), batch=st.integers(1, 64), said=st.none() | st.integers(1, 512))
def test_a_step_has_the_same_rows_in_all_processes_together_as_in_one(
    world: int, batch: int, said: int | None
) -> None:
    swift: dict[str, Any] = {"per_device_train_batch_size": batch}
    if said is not None:
        swift["gradient_accumulation_steps"] = said
    each = accumulation_of_each(swift, world)
    if each is None:
        assert accumulation_of_one(swift) % world
    else:
        assert batch * each * world == batch * accumulation_of_one(swift)


def test_a_node_number_beyond_the_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="they begin at 0"):
        LaunchSettings(nodes=2, node_rank=2)
