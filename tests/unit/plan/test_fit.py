from __future__ import annotations

import pytest
from support_recipes import recipes_for_one_card

from palmswift.plan.cards import usable_mib
from palmswift.plan.fit import plan_recipe
from palmswift.recipes.load import load_checked


@pytest.mark.parametrize("name", recipes_for_one_card())
def test_every_shipped_recipe_loads_checks_and_fits_its_budget(name: str) -> None:
    recipe = load_checked(name).recipe
    plan = plan_recipe(recipe)
    assert recipe.name == name
    if recipe.needs_gpu and recipe.task not in ("sft", "pt", "dpo"):
        assert plan.fits is None and f"task {recipe.task} is not predicted" in plan.remark
        return
    assert plan.fits is True
    if recipe.needs_gpu:
        assert 0 < plan.peak_mib <= plan.usable_mib
        assert plan.longest_length >= plan.length
        assert recipe.swift["eval_strategy"] != "no"


def test_an_8_gb_card_has_7537_mib_to_give() -> None:
    assert usable_mib(8188) == 7537
    assert usable_mib(100) == 0


def test_the_longest_length_fits_and_the_next_one_does_not() -> None:
    recipe = load_checked("qwen3_8b_4bit").recipe
    longest = plan_recipe(recipe).longest_length
    assert plan_recipe(recipe, length=longest).fits
    assert not plan_recipe(recipe, length=longest + 64).fits


def test_fewer_supervised_tokens_need_less_without_liger() -> None:
    recipe = load_checked("qwen3_8b_4bit", ["swift.use_liger_kernel=false"]).recipe
    assert not plan_recipe(recipe).fits
    assert plan_recipe(recipe, supervised=256).fits


def test_no_length_fits_where_the_weights_do_not() -> None:
    plan = plan_recipe(load_checked("qwen3_8b_4bit").recipe, gpu_mib=4096)
    assert (plan.fits, plan.longest_length) == (False, 0)


def test_every_phase_is_the_sum_of_its_named_terms() -> None:
    plan = plan_recipe(load_checked("qwen3_8b_4bit").recipe)
    standing = sum(plan.terms_mib["standing"].values())
    for phase, total in plan.phases_mib.items():
        assert standing + sum(plan.terms_mib[phase].values()) == pytest.approx(total, abs=8)
    assert plan.peak_mib == max(plan.phases_mib.values())
