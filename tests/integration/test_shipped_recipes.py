"""What a user is promised of each shipped recipe, before a byte is downloaded."""

from __future__ import annotations

import pytest
from support_deploy import REPOSITORY
from support_recipes import recipes_for_one_card

from palmswift.launchers.arguments import TrainingPaths
from palmswift.launchers.render import render_training
from palmswift.plan.fit import plan_recipe
from palmswift.recipes.check import EXPLICIT, check_recipe
from palmswift.recipes.load import load_checked
from palmswift.recipes.source import read_recipe, recipe_names
from palmswift.recipes.swift_script import read_calls

RENDERED = REPOSITORY / "tests" / "unit" / "launchers" / "rendered"

MARGIN = 0.03
"""Share of the usable memory that a recipe leaves free, over what fragmentation takes."""

UNPREDICTED = ("orpo", "simpo", "kto", "grpo", "gkd")
"""Tasks that the planner refuses to predict; docs/methods.md has the rule for their budgets."""

SAID = {*EXPLICIT, "per_device_eval_batch_size", "add_non_thinking_prefix", "preserve_thinking"}
"""What every recipe says in full: what is trained, on what, and how it is evaluated."""


SINGLE = recipes_for_one_card()


@pytest.mark.parametrize("name", SINGLE)
def test_a_shipped_recipe_is_checked_says_all_that_matters_renders_and_fits_its_card(
    name: str,
) -> None:
    assert check_recipe(read_recipe(name)) == []
    recipe = load_checked(name).recipe
    assert set(recipe.swift) >= SAID
    assert recipe.swift["seed"] == recipe.swift["data_seed"] == recipe.data.seed

    paths = TrainingPaths("M", REPOSITORY / "t.jsonl", REPOSITORY / "v.jsonl", REPOSITORY / "o")
    (rendered,) = read_calls(render_training(recipe, paths).script, name)
    (stored,) = read_calls((RENDERED / f"{name}.sh").read_text(encoding="utf-8"), name)
    assert rendered.arguments.items() >= recipe.swift.items()
    assert stored.arguments.items() >= recipe.swift.items()
    assert set(stored.arguments) >= set(rendered.arguments)
    assert stored.env.items() >= recipe.env.items()

    plan = plan_recipe(recipe)
    if recipe.needs_gpu and recipe.task in UNPREDICTED:
        assert plan.fits is None
        assert f"task {recipe.task} is not predicted" in plan.remark
        return
    assert plan.fits, plan.remark
    if recipe.needs_gpu:
        assert recipe.swift["eval_accumulation_steps"] == 1
        assert recipe.swift["per_device_eval_batch_size"] == 1
        assert plan.peak_mib <= (1 - MARGIN) * plan.usable_mib


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - set(SINGLE)))
def test_a_recipe_beyond_one_card_is_checked_and_promises_no_peak(name: str) -> None:
    assert check_recipe(read_recipe(name)) == []
    recipe = load_checked(name).recipe
    assert set(recipe.swift) >= SAID
    plan = plan_recipe(recipe)
    assert plan.fits is None
    assert plan.remark
    assert plan.peak_mib == 0
