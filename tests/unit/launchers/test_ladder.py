"""A training that ran out of memory is made smaller: what costs quality last, nothing in vain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_runs import make_recipe

from palmswift.launchers.ladder import Climb, Situation, climb
from palmswift.plan.fit import Conditions, plan_under
from palmswift.plan.lengths import Lengths
from palmswift.recipes.load import load_checked
from palmswift.recipes.recipe import Recipe

PHASES = ["load", "encode", "forward", "backward", "optimizer", "evaluation", "save", ""]


def _recipe(allow: Any = (), gpu_mib: Any = 0, **swift: Any) -> Recipe:
    arguments = {"tuner_type": "lora", "eval_strategy": "steps", "max_length": 1024, **swift}
    return make_recipe(
        swift=arguments,
        recovery={"allow": list(allow)},
        budget={"gpu_mib": gpu_mib, "disk_mib": 1},
    )


def _climbs(recipe: Recipe, situation: Situation) -> list[Climb]:
    """All climbs until there is none left, as if none of them were enough."""
    found: list[Climb] = []
    while (next_one := climb(recipe, situation)) is not None:
        found.append(next_one)
        recipe = next_one.recipe
        assert len(found) < 30
    return found


def _changes(recipe: Recipe, phase: str, **more: Any) -> list[list[str]]:
    return [climbed.changes for climbed in _climbs(recipe, Situation(phase, **more))]


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer", "save", "encode", ""])
def test_the_micro_batch_is_halved_and_the_effective_batch_stays(phase: str) -> None:
    recipe = _recipe(per_device_train_batch_size=8, gradient_accumulation_steps=2)
    assert _changes(recipe, phase) == [
        [f"swift.per_device_train_batch_size={size} swift.gradient_accumulation_steps={16 // size}"]
        for size in (4, 2, 1)
    ]


@given(batch=st.integers(1, 64), accumulation=st.integers(1, 9), processes=st.integers(1, 4))
def test_every_rung_keeps_the_effective_batch_exactly(
    batch: int, accumulation: int, processes: int
) -> None:
    recipe = make_recipe(
        swift={
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation * processes,  # it has to divide
        },
        launch={"processes": processes},
    )
    sizes = [batch]
    for climbed in _climbs(recipe, Situation("backward")):
        swift = climbed.recipe.swift
        size, steps = swift["per_device_train_batch_size"], swift["gradient_accumulation_steps"]
        assert isinstance(size, int) and isinstance(steps, int)
        assert size * steps == batch * accumulation * processes
        assert steps % processes == 0
        assert size < sizes[-1]
        assert f"stays {batch * accumulation * processes}" in climbed.reasons[0]
        sizes.append(size)
    assert sizes[-1] == 1


def test_an_evaluation_is_made_smaller_before_the_training() -> None:
    recipe = _recipe(per_device_train_batch_size=8, per_device_eval_batch_size=8)
    assert _changes(recipe, "evaluation") == [
        [
            "swift.per_device_eval_batch_size=1 swift.eval_accumulation_steps=1 "
            "swift.prediction_loss_only=true"
        ]
    ]


def test_a_metric_keeps_the_logits_that_it_is_made_of() -> None:
    recipe = _recipe(per_device_eval_batch_size=8, eval_metric="acc")
    (changes,) = _changes(recipe, "evaluation")
    assert "prediction_loss_only" not in changes[0]


def test_grpo_keeps_a_group_of_answers_together() -> None:
    recipe = make_recipe(
        task="grpo",
        swift={
            **{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
            **{"steps_per_generation": 2, "num_generations": 4, "reward_funcs": ["accuracy"]},
            "per_device_eval_batch_size": 8,
        },
    )
    first = climb(recipe, Situation("forward"))
    assert first is not None
    assert first.recipe.swift["steps_per_generation"] == 4
    (evaluation,) = _climbs(recipe, Situation("evaluation"))
    assert evaluation.recipe.swift["per_device_eval_batch_size"] == 4


def test_checkpointing_comes_after_the_batch_and_keeps_the_checkpoint() -> None:
    recipe = _recipe(
        per_device_train_batch_size=2, gradient_accumulation_steps=1, gradient_checkpointing=False
    )
    climbs = _climbs(recipe, Situation("backward", has_checkpoint=True))
    assert [climbed.changes[0].split("=")[0] for climbed in climbs] == [
        "swift.per_device_train_batch_size",
        "swift.gradient_checkpointing",
    ]
    assert all(climbed.keeps_checkpoint for climbed in climbs)


@pytest.mark.parametrize("name", ["group_by_length", "dataloader_drop_last"])
def test_a_batch_that_changes_the_rows_order_begins_anew(name: str) -> None:
    recipe = _recipe(per_device_train_batch_size=2, **{name: True})
    (climbed,) = _climbs(recipe, Situation("backward", has_checkpoint=True))
    assert not climbed.keeps_checkpoint


def test_rows_and_rank_are_given_up_only_where_that_is_allowed_and_last() -> None:
    arguments = {"per_device_train_batch_size": 2, "lora_rank": 16, "lora_alpha": 32}
    assert len(_changes(_recipe(**arguments), "backward")) == 1
    lengths = Lengths(longest=900, p99=700, most_supervised=100)
    climbs = _climbs(
        _recipe(("length", "rank"), **arguments), Situation("backward", lengths=lengths)
    )
    assert [climbed.changes[0].split(" ")[0] for climbed in climbs] == [
        "swift.per_device_train_batch_size=1",
        "swift.max_length=700",
        "swift.max_length=320",
        "swift.max_length=128",
        "swift.max_length=64",
        "swift.lora_rank=8",
        "swift.lora_rank=4",
    ]
    assert [climbed.renews_data for climbed in climbs] == [False, *[True] * 4, False, False]
    assert [climbed.keeps_checkpoint for climbed in climbs] == [True, *[False] * 6]
    assert climbs[-1].recipe.swift["lora_alpha"] == 8


@pytest.mark.parametrize("phase", PHASES)
def test_a_recipe_that_cannot_be_smaller_is_left(phase: str) -> None:
    recipe = _recipe(
        **{"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1},
        **{"eval_accumulation_steps": 1, "prediction_loss_only": True},
    )
    assert climb(recipe, Situation(phase)) is None


def test_an_allocator_that_wastes_less_comes_with_the_first_change() -> None:
    recipe = _recipe(gpu_mib=8188, per_device_train_batch_size=2)
    first = climb(recipe, Situation("backward"))
    second = climb(first.recipe, Situation("backward")) if first else None
    assert first is not None and second is not None
    assert len(first.changes) == 1
    assert second.changes[0] == "env.PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
    assert len(second.changes) == 2


def test_one_of_several_machines_changes_nothing_by_itself() -> None:
    swift = {"per_device_train_batch_size": 8}
    recipe = make_recipe(swift=swift, launch={"nodes": 2, "processes": 2})
    assert climb(recipe, Situation("backward")) is None


# With a card that can be planned for


def _qwen(*overrides: str) -> Recipe:
    return load_checked("qwen3_8b_4bit", list(overrides)).recipe


def _card(mib: int) -> Conditions:
    return Conditions(gpu_mib=mib, desktop_mib=0)


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every optional package is there."""
    monkeypatch.setattr("palmswift.launchers.ladder.find_spec", lambda name: object())


@pytest.mark.parametrize("mib", [7200, 7700, 9000])
@pytest.mark.parametrize("phase", ["backward", "evaluation"])
@pytest.mark.usefixtures("liger")
def test_with_a_plan_the_next_recipe_fits_by_it_and_takes_less(mib: int, phase: str) -> None:
    recipe = _qwen(
        "swift.per_device_train_batch_size=8",
        "swift.gradient_accumulation_steps=2",
        "swift.per_device_eval_batch_size=8",
        "swift.use_liger_kernel=false",
    )
    climbed = climb(recipe, Situation(phase, conditions=_card(mib)))
    assert climbed is not None
    before, after = (plan_under(one, _card(mib)) for one in (recipe, climbed.recipe))
    assert after.fits
    assert after.phases_mib[max(after.phases_mib, key=lambda name: after.phases_mib[name])] <= (
        before.peak_mib
    )
    swift = climbed.recipe.swift
    size, steps = swift["per_device_train_batch_size"], swift["gradient_accumulation_steps"]
    assert isinstance(size, int) and isinstance(steps, int)
    assert size * steps == 16
    assert swift["max_length"] == recipe.swift["max_length"]
    assert swift["lora_rank"] == recipe.swift["lora_rank"]


def test_with_a_plan_the_micro_batch_is_no_smaller_than_it_must_be() -> None:
    recipe = _qwen(
        "swift.per_device_train_batch_size=16",
        "swift.gradient_accumulation_steps=1",
        "swift.max_length=512",
    )
    roomy = climb(recipe, Situation("backward", conditions=_card(24576)))
    tight = climb(recipe, Situation("backward", conditions=_card(8188)))
    assert roomy is not None and tight is not None
    sizes = [one.recipe.swift["per_device_train_batch_size"] for one in (roomy, tight)]
    assert sizes[0] == 8
    assert sizes[1] in (1, 2, 4)


def test_with_a_plan_a_failed_recipe_that_should_have_fitted_is_not_believed() -> None:
    recipe = _qwen("swift.per_device_train_batch_size=2", "swift.gradient_accumulation_steps=8")
    conditions = _card(16380)
    failed = plan_under(recipe, conditions)
    assert failed.fits
    climbed = climb(recipe, Situation("backward", conditions=conditions))
    assert climbed is not None
    assert plan_under(climbed.recipe, conditions).peak_mib < 0.96 * failed.peak_mib


def test_with_a_plan_that_never_fits_nothing_is_tried() -> None:
    assert climb(_qwen(), Situation("backward", conditions=_card(5000))) is None


def test_loading_is_helped_only_by_what_loads_less() -> None:
    recipe = _qwen("swift.per_device_train_batch_size=8")
    climbed = climb(recipe, Situation("load", conditions=_card(6141)))
    assert climbed is None or "per_device_train_batch_size" not in " ".join(climbed.changes)


@pytest.mark.usefixtures("liger")
def test_what_drops_the_checkpoint_waits_while_there_is_one() -> None:
    recipe = _qwen("swift.optim=adamw_torch", "swift.use_liger_kernel=false")
    order = {
        kept: [climbed.changes for climbed in _climbs(recipe, Situation("backward", kept))]
        for kept in (False, True)
    }
    optimizer, offload = ["swift.optim=adamw_8bit"], ["plugins+=checkpoint_offload"]
    assert order[False].index(optimizer) < order[False].index(offload)
    assert order[True].index(optimizer) > order[True].index(offload)
    assert order[False][0] == order[True][0] == ["swift.use_liger_kernel=true"]
