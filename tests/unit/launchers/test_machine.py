"""What a machine cannot do is said before anything is fetched, with what it can."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_runs import make_recipe

from palmswift.errors import Problem
from palmswift.launchers.machine import machine_problems, version_remark
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


def test_a_card_in_use_is_said_with_the_recipes_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(tmp_path, monkeypatch, "NVIDIA GeForce RTX 4060, 595.71, 8188, 5900, 8.9")
    (problem,) = _problems(tmp_path)
    assert "has 5,900 MiB free of 8,188" in problem.what
    assert problem.remedy.endswith("qwen3_1_7b_lora, qwen3_4b_4bit, qwen3_0_6b_lora")


def test_a_card_too_small_for_all_is_sent_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(tmp_path, monkeypatch, "NVIDIA GeForce GT 710, 470.0, 2002, 1900, 3.5")
    assert _problems(tmp_path)[0].remedy.endswith("demo_cpu")


def test_the_roomiest_of_several_cards_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "A, 595.71, 8188, 300, 8.9\nB, 595.71, 8188, 8000, 8.9"
    _card(tmp_path, monkeypatch, lines)
    assert _problems(tmp_path) == []


def test_unified_memory_of_which_the_driver_tells_nothing_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card(tmp_path, monkeypatch, "NVIDIA GB10, 580.95, [N/A], [N/A], 12.1")
    assert _problems(tmp_path) == []


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


def test_too_little_disk_no_ms_swift_and_several_nodes_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PALMSWIFT_SWIFT")
    monkeypatch.setattr("palmswift.launchers.machine.installed_version", lambda: None)
    budget = {"gpu_mib": 0, "disk_mib": 10**12}
    told = [problem.what for problem in _problems(tmp_path, budget=budget, launch={"nodes": 2})]
    assert len(told) == 3
    assert "trains on one machine" in told[0]
    assert "ms-swift is not installed" in told[1]
    assert "needs 1,000,000,000,000 MiB" in told[2]


@pytest.mark.parametrize(("installed", "remark"), [("4.6.0", False), (None, False), ("9.9", True)])
def test_an_ms_swift_without_a_catalogue_is_remarked_on(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, remark: bool
) -> None:
    monkeypatch.setattr("palmswift.launchers.machine.installed_version", lambda: installed)
    assert ("9.9 is installed" in version_remark()) == remark
