from __future__ import annotations

from typing import Any

import pytest

from palmswift.errors import InputError
from palmswift.plan.memory import MIB
from palmswift.plan.serving import (
    ServingConditions,
    ServingPlan,
    kv_bytes_per_token,
    plan_serving,
    served_weight_bytes,
    serving_text,
)
from palmswift.plan.shapes import QWEN3
from palmswift.recipes.load import load_checked


def _plan(*overrides: str, name: str = "qwen3_8b_4bit", **conditions: Any) -> ServingPlan:
    recipe = load_checked(name, overrides).recipe
    return plan_serving(recipe, ServingConditions()._replace(**conditions))


@pytest.mark.parametrize(
    ("size", "kib"), [("0.6B", 112), ("1.7B", 112), ("4B", 144), ("8B", 144), ("14B", 160)]
)
def test_a_token_of_kv_cache_is_2_x_2_bytes_x_layers_x_kv_heads_x_128(size: str, kib: int) -> None:
    assert kv_bytes_per_token(QWEN3[size]) == kib * 1024


def test_8b_weighs_16_4_gb_in_16_bits_and_about_6_1_gb_in_4() -> None:
    shape = QWEN3["8B"]
    assert served_weight_bytes(shape, "bf16") == pytest.approx(2 * 8_190_735_360, rel=1e-4)
    # the published Qwen3-8B-AWQ has 6.1 GB of safetensors: 16-bit embedding and head included
    assert served_weight_bytes(shape, "awq") == pytest.approx(6.1e9, rel=0.01)
    assert served_weight_bytes(shape, "bnb-4bit") / MIB == pytest.approx(5792, abs=2)


def test_the_cache_of_all_parallel_requests_fits_and_one_more_does_not() -> None:
    for plan in (_plan(), _plan(backend="vllm"), _plan(name="qwen3_0_6b_lora", context=30000)):
        needed = plan.bytes_per_token * plan.context
        assert plan.parallel_requests * needed <= (plan.free_mib + 1) * MIB
        assert sum(plan.terms_mib.values()) + plan.free_mib == pytest.approx(
            plan.usable_mib, abs=len(plan.terms_mib) + 1
        )
        assert plan.fits == (plan.parallel_requests >= 1)
        assert plan.longest_context % 64 == 0


def test_8b_in_16_bits_does_not_fit_8_gb_and_one_in_4_bits_does() -> None:
    assert not _plan(weights="bf16").fits
    assert _plan().fits
    assert _plan().weights == "bnb-4bit"
    assert _plan("export.merge=true").weights == "bf16"


def test_vllm_is_given_the_fraction_that_is_free_beside_a_desktop_or_what_the_recipe_says() -> None:
    assert _plan(backend="vllm").memory_fraction == 0.93
    assert _plan(backend="vllm", desktop_mib=0).memory_fraction == 0.97
    said = _plan("deploy.swift.vllm_gpu_memory_utilization=0.8", backend="vllm")
    assert said.memory_fraction == 0.8
    assert said.free_mib < _plan(backend="vllm").free_mib
    assert _plan(backend="transformers").memory_fraction is None


def test_a_larger_card_never_serves_less() -> None:
    for backend in ("transformers", "vllm"):
        plans = [_plan(backend=backend, gpu_mib=mib) for mib in (6144, 8188, 12282, 24564)]
        contexts = [plan.longest_context for plan in plans]
        assert contexts == sorted(contexts)
        assert contexts[-1] == plans[-1].context_limit == 40960


def test_what_is_not_predicted_is_told_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        _plan("model.id=Qwen/Qwen2.5-7B", backend="sglang", weights="gptq")
    assert len(caught.value.problems) == 3


def test_the_text_has_what_a_user_asks_for() -> None:
    text = serving_text(_plan(backend="vllm", weights="awq"))
    for words in ("KV cache 144 KiB a token", "longest context", "parallel requests", "0.93"):
        assert words in text
