"""Recipes that tests write into their own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from palmswift.errors import InputError, Problem
from palmswift.recipes.load import load_checked
from palmswift.recipes.source import recipe_names

WHOLE = """\
name: mine
summary: a test
model:
  id: Qwen/Qwen3-8B
swift:
  enable_thinking: false
  eval_strategy: no
  load_from_cache_file: false
  loss_scale: default+ignore_empty_think
  max_length: 1024
  seed: 42
  split_dataset_ratio: 0
  truncation_strategy: delete
  lora_rank: 16
budget:
  gpu_mib: 8188
"""
"""A recipe that stands without a base and has nothing wrong."""


def recipes_for_one_card() -> list[str]:
    """Shipped recipes that ms-swift trains in one process, on a CUDA card or the CPU."""
    launches = {name: load_checked(name).recipe.launch for name in recipe_names()}
    return [
        name
        for name, launch in launches.items()
        if (launch.engine, launch.device) == ("swift", "cuda") and not launch.is_distributed
    ]


def write_recipe(folder: Path, text: str = WHOLE, name: str = "mine") -> str:
    """Write a recipe; its path as a user would give it."""
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def make_checkout(folder: Path) -> Path:
    """An empty checkout, which palmswift takes for its project when it is the working folder."""
    for name in ("recipes/bases", "launchers/templates"):
        (folder / name).mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    return folder


def problems_of(path: str, *overrides: str) -> list[Problem]:
    """What the checked load of a recipe complains about."""
    with pytest.raises(InputError) as caught:
        load_checked(path, overrides)
    return list(caught.value.problems)


def problem_about(key: str, problems: list[Problem]) -> Problem:
    """The one problem whose text starts with `key`."""
    matching = [problem for problem in problems if problem.what.startswith(key)]
    assert len(matching) == 1, f"{key}: {problems}"
    return matching[0]
