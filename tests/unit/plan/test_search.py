"""A fitted recipe fits, passes the check, and no change in it is in vain."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.plan.fit import Conditions, plan_under
from palmswift.plan.lengths import Lengths
from palmswift.plan.search import Fitted, fit, recipe_yaml
from palmswift.recipes.load import load_checked, load_recipe
from palmswift.recipes.recipe import Recipe


def _recipe(*overrides: str, name: str = "qwen3_8b_4bit") -> Recipe:
    return load_checked(name, overrides).recipe


def _fitted(recipe: Recipe, gpu_mib: int, lengths: Lengths | None = None) -> Fitted:
    fitted = fit(recipe, Conditions(gpu_mib=gpu_mib, lengths=lengths))
    assert fitted is not None
    return fitted


def _changed(fitted: Fitted) -> list[str]:
    return [change.what for change in fitted.changes]


def test_a_recipe_that_fits_is_left_as_it_is() -> None:
    recipe = _recipe()
    fitted = _fitted(recipe, 8188)
    assert fitted.recipe == recipe
    assert fitted.changes == []


def test_what_trains_the_same_is_changed_before_what_costs_quality() -> None:
    recipe = _recipe("swift.use_liger_kernel=false", "swift.lora_dropout=0.05")
    assert _changed(_fitted(recipe, 8188)) == ["swift.use_liger_kernel=true"]


def test_the_effective_batch_stays() -> None:
    recipe = _recipe(
        "swift.per_device_train_batch_size=4", "swift.gradient_accumulation_steps=8"
    )  # fmt: skip
    swift = _fitted(recipe, 8188).recipe.swift
    assert (swift["per_device_train_batch_size"], swift["gradient_accumulation_steps"]) == (1, 32)


def test_rows_are_cut_to_the_data_s_p99_and_not_below() -> None:
    lengths = Lengths(longest=40000, most_supervised=40000, p99=3000)
    recipe = _recipe("swift.max_length=40000")
    length = _fitted(recipe, 8188, lengths).recipe.swift["max_length"]
    assert isinstance(length, int)
    assert 3000 <= length < 40000


def test_a_smaller_rank_keeps_the_scale_of_the_update() -> None:
    recipe = _recipe("swift.lora_rank=256", "swift.lora_alpha=512")
    swift = _fitted(recipe, 8188).recipe.swift
    assert isinstance(swift["lora_rank"], int)
    assert swift["lora_rank"] < 256
    assert swift["lora_alpha"] == 2 * swift["lora_rank"]


def test_a_smaller_model_is_the_last_resort() -> None:
    fitted = _fitted(_recipe(), 4096)
    assert _changed(fitted)[0] == "model.id=Qwen/Qwen3-4B"
    assert fitted.plan.model == "Qwen/Qwen3-4B"
    assert _fitted(_recipe("model.id=Qwen/Qwen3-14B"), 12282).recipe.model.id == "Qwen/Qwen3-14B"


def test_a_model_without_smaller_ones_is_not_replaced() -> None:
    recipe = load_recipe("qwen3_4b_4bit", ["model.id=Qwen/Qwen3-4B-Instruct-2507"]).recipe
    assert fit(recipe, Conditions(gpu_mib=2048)) is None


def test_an_optimizer_that_needs_less_than_ours_is_kept() -> None:
    recipe = _recipe("swift.optim=lion_8bit", "swift.lora_rank=96")
    assert _fitted(recipe, 8188).recipe.swift["optim"] == "lion_8bit"


def test_nothing_fits_a_card_of_one_gib() -> None:
    assert fit(_recipe(), Conditions(gpu_mib=1024)) is None


def test_what_cannot_be_predicted_is_not_fitted() -> None:
    assert fit(_recipe("swift.optim=lomo"), Conditions(gpu_mib=8188)) is None


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["qwen3_8b_4bit", "qwen3_4b_4bit", "qwen3_1_7b_lora"]),
    gpu_mib=st.sampled_from([2048, 4096, 6144, 8188, 10240, 12282, 16380, 24564]),
    rank=st.sampled_from([8, 16, 64, 128]),
    length=st.sampled_from([512, 1024, 4096, 12288]),
    liger=st.booleans(),
    batch=st.sampled_from([1, 2, 8]),
)
def test_a_fitted_recipe_fits_and_is_no_worse_than_needed(
    name: str, gpu_mib: int, rank: int, length: int, liger: bool, batch: int
) -> None:
    recipe = _recipe(
        f"swift.lora_rank={rank}",
        f"swift.max_length={length}",
        f"swift.use_liger_kernel={str(liger).lower()}",
        f"swift.per_device_train_batch_size={batch}",
        name=name,
    )
    conditions = Conditions(gpu_mib=gpu_mib)
    fitted = fit(recipe, conditions)
    if fitted is None:
        return
    assert fitted.plan.fits
    assert all(change.saved_mib >= 0 for change in fitted.changes)
    after, before = fitted.recipe, recipe.swift
    for key in {**before, **after.swift}:
        if after.swift.get(key) != before.get(key) and key.startswith(("max_length", "lora_r")):
            undone = after.model_copy(update={"swift": {**after.swift, key: before.get(key)}})
            assert not plan_under(undone, conditions).fits, key
    for plugin in after.plugins:
        kept = [other for other in after.plugins if other != plugin]
        assert not plan_under(after.model_copy(update={"plugins": kept}), conditions).fits


@pytest.mark.parametrize("gpu_mib", [4096, 6141, 8188, 12282])
def test_the_file_it_writes_is_a_recipe_that_passes_the_check(gpu_mib: int, tmp_path: Path) -> None:
    recipe = _recipe("swift.lora_rank=64", "swift.use_liger_kernel=false")
    fitted = _fitted(recipe, gpu_mib)
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_yaml(fitted, "the test", "mine"), encoding="utf-8")
    loaded = load_checked(str(path)).recipe
    assert loaded.name == "mine"
    assert loaded.budget.gpu_mib == gpu_mib
    assert loaded.swift == fitted.recipe.swift
    assert plan_under(loaded, Conditions()).fits
