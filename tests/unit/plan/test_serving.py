from __future__ import annotations

import shlex
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.deploy.serve import _parser as serve_parser
from palmswift.deploy.settings import parse_settings
from palmswift.errors import InputError
from palmswift.plan.memory import MIB
from palmswift.plan.serving import (
    Server,
    ServingConditions,
    ServingPlan,
    plan_server,
    plan_serving,
)
from palmswift.plan.serving_memory import (
    Served,
    gguf_bytes,
    kv_bytes_per_token,
    request_bytes,
    served_weight_bytes,
    standing_bytes,
)
from palmswift.plan.serving_text import commands_of, serving_text, ways_of
from palmswift.plan.shapes import QWEN3
from palmswift.recipes.load import load_checked
from palmswift.recipes.source import recipe_names


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


def test_gguf_files_are_as_large_as_those_that_qwen_publishes() -> None:
    # Sizes of Qwen/Qwen3-SIZE-GGUF on the hubs, 10^9 bytes
    published = {
        ("8B", "q4_k_m"): 5.03,
        ("8B", "q5_k_m"): 5.85,
        ("8B", "q6_k"): 6.73,
        ("8B", "q8_0"): 8.71,
        ("4B", "q4_k_m"): 2.50,
        ("1.7B", "q8_0"): 1.83,
        ("14B", "q4_k_m"): 9.00,
    }
    for (size, kind), giga in published.items():
        assert gguf_bytes(QWEN3[size], kind) / 1e9 == pytest.approx(giga, rel=0.006), (size, kind)


def test_vllm_s_own_measurement_in_a_published_log_is_met_within_two_percent() -> None:
    # LMCache issue 3430: vLLM 0.21 offline (8,192 tokens at a time), Qwen3-8B in 16 bits, 24 GB;
    # 0.9764 of the card, "Available KV cache memory: 6.37 GiB", "GPU KV cache size: 46,368 tokens".
    # 0.52 GiB were 2.21 % of the card, so CUDA saw 23.5 GiB.
    served = Served(QWEN3["8B"], "vllm", "bf16", batched_tokens=8192)
    left = 0.9764 * 23.5 * 1024 * MIB - sum(standing_bytes(served, 256).values())
    assert left / 2**30 == pytest.approx(6.37, rel=0.02)
    assert left / kv_bytes_per_token(served.shape) == pytest.approx(46_368, rel=0.02)


def test_llama_cpp_s_compute_buffer_is_the_one_that_its_logs_show() -> None:
    # "CUDA0 compute buffer size" of a model of this vocabulary and width at --ubatch-size 512
    terms = standing_bytes(Served(QWEN3["8B"], "llama.cpp", "q4_k_m"), 1)
    assert terms["compute_buffer"] / MIB == 304.75


@given(
    size=st.sampled_from([*QWEN3]),
    backend=st.sampled_from(["transformers", "vllm", "llama.cpp"]),
    gpu_mib=st.integers(1024, 80_000),
    context=st.integers(1, 50_000),
    rank=st.sampled_from([0, 1, 16, 100]),
)
def test_all_parallel_requests_fit_and_one_more_or_longer_does_not(
    size: str, backend: Any, gpu_mib: int, context: int, rank: int
) -> None:
    weights: Any = "q4_k_m" if backend == "llama.cpp" else "awq"
    shape = QWEN3[size]
    server = Server("x", "x", shape, backend, weights, True, rank, 1, {}, context)
    plan = plan_server(server, ServingConditions(gpu_mib=gpu_mib))
    room = 16 if 8 < rank <= 16 else rank and (8 if rank <= 8 else 128)
    served = Served(shape, backend, weights, room if backend == "vllm" else rank)

    def taken(requests: int, tokens: int) -> int:
        standing = sum(standing_bytes(served, requests).values())
        return standing + request_bytes(served, requests, tokens)

    usable, number = plan.usable_mib * MIB, plan.parallel_requests
    most = {"transformers": 8, "vllm": 256, "llama.cpp": 64}[backend]
    assert plan.fits == (number >= 1)
    if number < most:
        assert taken(number + 1, plan.context) > usable
    if number:
        assert taken(number, plan.context) <= usable
        assert plan.context <= plan.max_model_len <= plan.longest_context <= plan.context_limit
        at_once = 1 if backend == "vllm" else number
        assert (
            sum(standing_bytes(served, number).values())
            + request_bytes(served, at_once, plan.max_model_len)
            <= usable
        )
    if plan.longest_context:
        assert taken(1, plan.longest_context) <= usable
    terms = sum(plan.terms_mib.values())
    assert terms + plan.free_mib >= plan.usable_mib - len(plan.terms_mib)


def test_fewer_requests_leave_longer_ones_and_a_context_of_one_s_own_is_kept() -> None:
    for backend in ("transformers", "vllm", "llama.cpp"):
        contexts = [_plan(backend=backend, parallel=number).context for number in (4, 2, 1)]
        assert contexts == sorted(contexts) and contexts[0] < contexts[-1]
    both = _plan(backend="vllm", parallel=2, context=3000)
    assert (both.context, both.parallel_requests) == (3000, 2)
    assert not _plan(backend="vllm", parallel=2, context=30000).fits
    assert not _plan(backend="vllm", weights="bf16", parallel=2).fits


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
        _plan("model.id=Qwen/Qwen2.5-7B", backend="sglang", weights="int3")
    assert len(caught.value.problems) == 3
    with pytest.raises(InputError) as caught:
        _plan(backend="vllm", weights="bnb-8bit")
    assert "bnb-4bit, awq" in str(caught.value.problems[0].remedy)


def test_a_card_s_own_free_memory_comes_before_the_guess_of_a_desktop_s_share() -> None:
    plan = _plan(backend="vllm", gpu_mib=8188, free_mib=7000, total_mib=7803)
    assert plan.memory_fraction == 0.87  # (7000 - 180) / 7803
    assert plan.usable_mib <= 7000 - 180
    assert _plan(gpu_mib=8188, free_mib=6500, total_mib=7803).usable_mib <= 6500 - 180


@pytest.mark.parametrize("backend", ["transformers", "vllm"])
def test_the_command_has_the_plan_s_numbers_and_serve_takes_them(backend: str) -> None:
    plan = _plan(backend=backend)
    (command,) = commands_of(plan)
    words = shlex.split(command)
    assert words[:4] == ["python", "deploy/serve.py", "--run", "latest"]
    given_settings = [after for word, after in pairwise(words) if word == "--set"]
    assert parse_settings(given_settings) == plan.settings
    parsed = serve_parser().parse_args(words[2:])
    assert (parsed.server or parsed.backend) == backend


def test_other_weights_are_exported_before_they_are_served() -> None:
    first, second = commands_of(_plan(backend="vllm", weights="awq"))
    assert first == "python launchers/export.py --run latest --quant awq"
    assert "--model EXPORTED" in second
    gguf = _plan(backend="llama.cpp")
    *_, server = commands_of(gguf)
    assert f"--parallel {gguf.parallel_requests} " in server
    assert f"--ctx-size {gguf.parallel_requests * gguf.max_model_len} " in server


def test_the_best_way_is_the_most_requests_of_those_that_lose_nothing() -> None:
    for name in recipe_names():
        ways = ways_of(load_checked(name).recipe)
        best = ways.best
        for way in filter(None, ways):
            if best is None:
                assert not way.fits
            elif way.fits and way.as_trained:
                assert best.as_trained
                assert best.parallel_requests >= way.parallel_requests


def test_what_is_not_made_for_an_nvidia_card_has_no_way() -> None:
    for name in ("demo_cpu", "qwen3_8b_npu", "qwen3_4b_mlx"):
        assert set(ways_of(load_checked(name).recipe)) == {None}


def test_the_text_has_what_a_user_asks_for() -> None:
    text = serving_text(_plan(backend="vllm", weights="awq"))
    for words in ("KV cache 144 KiB a token", "up to 7,", "parallel requests", "0.93"):
        assert words in text
