"""What a machine lacks for a launch is told before anything is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_runs import make_recipe

from palmswift.launchers.engines.machine import engine_problems, needs_gpu_here, submits
from palmswift.setup.gpus import Gpu, GpuReport

GPU = {"gpu_mib": 8188}


def _told(launch: dict[str, Any], **more: Any) -> list[str]:
    recipe = make_recipe(launch=launch, budget=GPU, **more)
    return [problem.what for problem in engine_problems(recipe)]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No schedulers, and none of the packages that a launch may ask for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("launch", "swift", "package"),
    [
        ({"strategy": "zero2"}, {}, "deepspeed"),
        ({"scheduler": "ray"}, {}, "ray"),
        ({"device": "npu"}, {}, "torch_npu"),
        ({}, {"tuner_backend": "unsloth"}, "unsloth"),
    ],
)
def test_a_missing_package_is_named(
    launch: dict[str, str], swift: dict[str, str], package: str
) -> None:
    assert any(f"package {package} is not" in what for what in _told(launch, swift=swift))


@pytest.mark.parametrize(("scheduler", "program"), [("slurm", "sbatch"), ("kubernetes", "kubectl")])
def test_a_scheduler_that_is_not_here_is_told_and_none_of_its_nodes_needs(
    scheduler: str, program: str
) -> None:
    launch = {"scheduler": scheduler, "strategy": "zero2"}
    assert _told(launch) == [f"launch.scheduler is {scheduler}, and there is no {program} here"]


def test_inside_a_job_nothing_is_submitted_and_the_node_needs_the_cards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = make_recipe(launch={"scheduler": "slurm"}, budget=GPU)
    assert submits(recipe) and not needs_gpu_here(recipe)
    monkeypatch.setenv("PALMSWIFT_NODE_RANK", "0")
    assert not submits(recipe) and needs_gpu_here(recipe)


@pytest.mark.parametrize(
    ("count", "said", "told"),
    [
        (1, None, "this machine has 1 GPUs"),
        (2, None, ""),
        (4, None, ""),
        (4, "0,1,2", "CUDA_VISIBLE_DEVICES shows 3 GPUs"),
        (4, "2,3", ""),
    ],
)
def test_there_has_to_be_a_card_for_each_process(
    monkeypatch: pytest.MonkeyPatch, count: int, said: str | None, told: str
) -> None:
    gpus = tuple(Gpu("RTX", "580", 8188, 8000, "8.9") for _ in range(count))
    monkeypatch.setattr("palmswift.launchers.engines.machine.ask_gpus", lambda: GpuReport(gpus))
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    problems = _told({"processes": 2})
    assert len(problems) == bool(told)
    assert told in "".join(problems)


def test_a_strategys_own_file_has_to_be_there(tmp_path: Path) -> None:
    launch = {"strategy": "fsdp2", "strategy_file": str(tmp_path / "f.json")}
    assert len(_told(launch)) == 1
    (tmp_path / "f.json").write_text("{}")
    assert _told(launch) == []
