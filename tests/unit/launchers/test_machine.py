"""What a machine cannot do is said before anything is fetched, with what it can."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_runs import make_recipe

from palmswift.errors import Problem
from palmswift.launchers.machine import (
    conditions_here,
    machine_problems,
    memory_problem,
    plan_here,
    version_remark,
)
from palmswift.plan.lengths import Lengths
from palmswift.recipes.load import load_recipe
from palmswift.recipes.recipe import Recipe

GPU_RECIPE = {"gpu_mib": 8188, "disk_mib": 1}


def _card(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, code: int = 0) -> None:
    """An nvidia-smi that prints `line` to every question."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{line}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture(autouse=True)
def _plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALMSWIFT_SWIFT", "swift")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _problems(folder: Path, **changes: object) -> list[Problem]:
    recipe: Recipe = make_recipe(**{"budget": GPU_RECIPE, **changes})
    return machine_problems(recipe, folder)


def test_a_cpu_recipe_runs_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _problems(tmp_path / "not" / "there", budget={"gpu_mib": 0, "disk_mib": 1}) == []


def test_no_gpu_is_said_with_the_recipe_that_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = _problems(tmp_path)
    assert "this machine has no NVIDIA GPU" in problem.what
    assert "--recipe demo_cpu" in problem.remedy


def test_a_card_that_is_large_enough_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(tmp_path, monkeypatch, "NVIDIA GeForce RTX 4060, 595.71, 8188, 7800, 8.9")
    assert _problems(tmp_path) == []


def _memory(folder: Path, free: int, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Problem:
    """What is said of the 8B recipe on a card with `free` MiB left."""
    line = f"NVIDIA GeForce RTX 4060, 595.71, 8188, {free}, 8.9"
    _card(folder, monkeypatch, line)
    problem = memory_problem(load_recipe("qwen3_8b_4bit", overrides).recipe, None, overrides)
    assert problem is not None
    return problem


def test_a_card_with_room_for_the_predicted_peak_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("qwen3_8b_4bit").recipe
    _card(tmp_path, monkeypatch, "NVIDIA GeForce RTX 4060, 595.71, 8188, 7200, 8.9")
    assert memory_problem(recipe) is None
    plan = plan_here(recipe)
    assert plan.fits
    assert plan.gpu_mib == 7200
    assert plan.speed is not None
    assert plan.speed.card == "RTX 4060"


def test_a_card_in_use_is_said_with_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = _memory(tmp_path, 6900, monkeypatch)
    assert "has 6,900 MiB free of 8,188" in problem.what
    assert "needs 7,098 MiB" in problem.what
    assert "--recipe qwen3_8b_4bit --gpu-mib 6900 --headless --fit" in problem.remedy
    assert "qwen3_4b_4bit" in problem.remedy


def test_real_rows_shorter_than_the_longest_allowed_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(tmp_path, monkeypatch, "NVIDIA GeForce RTX 4060, 595.71, 8188, 7700, 8.9")
    recipe = load_recipe("qwen3_8b_4bit", ["swift.use_liger_kernel=false"]).recipe
    assert memory_problem(recipe) is not None
    assert memory_problem(recipe, Lengths(longest=400, most_supervised=90, p99=380)) is None


def test_what_cannot_be_predicted_is_judged_by_what_it_is_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = _memory(tmp_path, 5900, monkeypatch, "swift.optim=lomo")
    assert "needs 7,688 MiB" in problem.what
    assert "--fit" not in problem.remedy
    _card(tmp_path, monkeypatch, "NVIDIA GeForce RTX 4060, 595.71, 8188, 7700, 8.9")
    assert memory_problem(load_recipe("qwen3_8b_4bit", ["swift.optim=lomo"]).recipe) is None


def test_a_card_too_small_for_all_is_sent_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _memory(tmp_path, 700, monkeypatch).remedy.endswith("demo_cpu")


def test_the_roomiest_of_several_cards_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "A, 595.71, 8188, 300, 8.9\nB, 595.71, 8188, 8000, 8.9"
    _card(tmp_path, monkeypatch, lines)
    assert _problems(tmp_path) == []
    assert memory_problem(load_recipe("qwen3_8b_4bit").recipe) is None


def test_unified_memory_of_which_the_driver_tells_nothing_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(tmp_path, monkeypatch, "NVIDIA GB10, 580.95, [N/A], [N/A], 12.1")
    assert _problems(tmp_path) == []
    assert memory_problem(load_recipe("qwen3_8b_4bit").recipe) is None


def test_a_driver_that_fails_is_said_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(tmp_path, monkeypatch, "Failed to initialize NVML: Driver/library version mismatch", 18)
    assert "Driver/library version mismatch" in _problems(tmp_path)[0].what


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_card_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    _card(tmp_path, monkeypatch, "NVIDIA GeForce RTX 4060, 595.71, 8188, 7800, 8.9")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert "CUDA_VISIBLE_DEVICES hides" in _problems(tmp_path)[0].what


def test_too_little_disk_no_ms_swift_and_no_scheduler_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PALMSWIFT_SWIFT")
    monkeypatch.setattr("palmswift.launchers.machine.installed_version", lambda: None)
    budget = {"gpu_mib": 0, "disk_mib": 10**12}
    told = [
        problem.what
        for problem in _problems(tmp_path, budget=budget, launch={"scheduler": "slurm"})
    ]
    assert len(told) == 3
    assert "there is no sbatch here" in told[0]
    assert "ms-swift is not installed" in told[1]
    assert "needs 1,000,000,000,000 MiB" in told[2]


@pytest.mark.parametrize(("installed", "remark"), [("4.6.0", False), (None, False), ("9.9", True)])
def test_an_ms_swift_without_a_catalogue_is_remarked_on(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, remark: bool
) -> None:
    monkeypatch.setattr("palmswift.launchers.machine.installed_version", lambda: installed)
    assert ("9.9 is installed" in version_remark()) == remark


def test_a_capped_card_is_planned_for_as_the_small_card_that_it_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(tmp_path, monkeypatch, "NVIDIA H100, 595.71, 81559, 80000, 9.0")
    recipe = load_recipe("qwen3_8b_4bit").recipe
    capped = recipe.model_copy(update={"plugins": ["gpu_cap"]})
    smaller = capped.model_copy(update={"env": {"PALMSWIFT_GPU_CAP_MIB": "4096"}})
    found = [conditions_here(one, None) for one in (recipe, capped, smaller)]
    assert [one.gpu_mib if one else None for one in found] == [80000, 7868, 4276]
    assert conditions_here(load_recipe("demo_cpu").recipe, None) is None


@pytest.mark.parametrize(("found", "told"), [(None, 1), (object(), 0)])
def test_a_reward_whose_package_is_missing_is_told_before_the_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: object, told: int
) -> None:
    monkeypatch.setattr("palmswift.launchers.machine.find_spec", lambda name: found)
    recipe = make_recipe(task="grpo", swift={"reward_funcs": ["format", "accuracy"]})
    problems = [p for p in machine_problems(recipe, tmp_path) if "math_verify" in p.what]
    assert len(problems) == told
