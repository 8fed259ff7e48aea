"""More work never needs less memory, and no lever ever needs more."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.plan.lifetime import lifetime
from palmswift.plan.memory import MIB, Evaluation, TrainingRun, trained_numbers
from palmswift.plan.shapes import QWEN3

_RUNS = st.builds(
    TrainingRun,
    shape=st.sampled_from(list(QWEN3.values())),
    rank=st.integers(1, 128),
    length=st.integers(1, 20000),
    supervised=st.none() | st.integers(1, 3000),
    optimizer=st.sampled_from(["adamw_torch", "adamw_torch_fused", "adamw_8bit", "sgd"]),
    liger=st.booleans(),
    dropout=st.sampled_from([0.0, 0.05]),
    lora_fp32=st.booleans(),
    accumulation=st.sampled_from([1, 16]),
    targets=st.sampled_from([("q_proj", "v_proj"), ("down_proj",), *[TrainingRun.targets]]),
    quantized=st.booleans(),
    double_quant=st.booleans(),
    quant_bits=st.sampled_from([4, 8]),
    batch=st.integers(1, 4),
    preference=st.booleans(),
    embedding_on_cpu=st.booleans(),
    checkpoint_offload=st.booleans(),
    tiled_mlp=st.none() | st.integers(1, 8192),
    quantised_head=st.sampled_from([None, "nf4"]),
    evaluation=st.none()
    | st.builds(
        Evaluation,
        batch=st.integers(1, 8),
        keeps_logits=st.booleans(),
        accumulated=st.integers(1, 4),
    ),
)
_FULL = st.builds(
    TrainingRun,
    shape=st.sampled_from(list(QWEN3.values())),
    rank=st.just(0),
    length=st.integers(1, 20000),
    optimizer=st.sampled_from(["adamw_torch", "adamw_torch_fused", "adamw_8bit"]),
    liger=st.booleans(),
    dropout=st.just(0.0),
    accumulation=st.sampled_from([1, 16]),
    quantized=st.just(False),
    full=st.just(True),
    weights_fp32=st.booleans(),
    checkpoint_offload=st.booleans(),
)


def _bytes(run: TrainingRun, **changes: Any) -> int:
    return lifetime(dataclasses.replace(run, **changes)).bytes


@settings(max_examples=200, deadline=None)
@given(run=_RUNS | _FULL, more=st.integers(1, 5000))
def test_a_longer_row_or_a_larger_batch_never_needs_less(run: TrainingRun, more: int) -> None:
    now = _bytes(run)
    assert _bytes(run, length=run.length + more) >= now
    assert _bytes(run, batch=run.batch + 1) >= now


@settings(max_examples=200, deadline=None)
@given(run=_RUNS)
def test_a_larger_rank_more_targets_or_accumulation_never_need_less(run: TrainingRun) -> None:
    now = _bytes(run)
    assert _bytes(run, rank=run.rank + 1) >= now
    assert _bytes(run, targets=TrainingRun.targets) >= now
    assert _bytes(run, accumulation=16) >= now


@settings(max_examples=200, deadline=None)
@given(
    run=_RUNS,
    lever=st.sampled_from(
        [
            {"embedding_on_cpu": True},
            {"checkpoint_offload": True},
            {"quantised_head": "nf4"},
            {"liger": True},
            {"dropout": 0.0},
            {"lora_fp32": False},
            {"optimizer": "adamw_8bit"},
            {"double_quant": True},
            {"supervised": 1},
        ]
    ),
)
def test_no_lever_ever_needs_more(run: TrainingRun, lever: dict[str, Any]) -> None:
    if "optimizer" in lever and run.optimizer == "sgd":
        return
    assert _bytes(run, **lever) <= _bytes(run)


@settings(max_examples=100, deadline=None)
@given(run=_RUNS, tile=st.integers(1, 8192))
def test_tiles_of_half_a_row_never_need_more_and_smaller_ones_never_more_than_larger(
    run: TrainingRun, tile: int
) -> None:
    # A tile of nearly the whole row saves less than the gathering of the tiles' outputs takes.
    tile = min(tile, max(1, run.tokens // 2))
    whole, tiled = _bytes(run, tiled_mlp=None), _bytes(run, tiled_mlp=tile)
    assert _bytes(run, tiled_mlp=max(1, tile // 2)) <= tiled <= whole


def test_a_full_tuning_of_0_6b_has_its_weights_gradients_and_states() -> None:
    run = TrainingRun(
        QWEN3["0.6B"], 0, 1024, liger=True, dropout=0.0, quantized=False, full=True,
        accumulation=1,
    )  # fmt: skip
    assert trained_numbers(run).numbers == 596_049_920
    peak = lifetime(run)
    step = peak.total("optimizer_step") - peak.standing["workspace"]
    # bf16 weights, gradients and AdamW's two moments: 8 bytes a parameter
    assert step / MIB == pytest.approx(8 * 596_049_920 / MIB, rel=1e-3)


def test_an_8_bit_optimizer_keeps_an_embedding_in_32_bits() -> None:
    run = TrainingRun(
        QWEN3["0.6B"], 0, 1024, quantized=False, full=True, optimizer="adamw_8bit"
    )  # fmt: skip
    embedding = 155_582_464
    state = lifetime(run).standing["optimizer_state"]
    assert state == pytest.approx(8 * embedding + 2.03 * (596_049_920 - embedding), rel=1e-2)


def test_8b_is_loaded_with_one_16_bit_matrix_beside_its_weights() -> None:
    run = TrainingRun(QWEN3["8B"], 16, 1024)
    assert lifetime(run).total("load") / MIB == pytest.approx(5792 + 96, abs=2)
    away = dataclasses.replace(run, embedding_on_cpu=True)
    assert lifetime(away).total("load") / MIB == pytest.approx(5792 + 96 - 1187, abs=2)


def test_evaluation_with_all_logits_kept_is_the_highest_phase() -> None:
    run = TrainingRun(QWEN3["8B"], 16, 1024, liger=True)
    alone = dataclasses.replace(run, evaluation=Evaluation())
    kept = dataclasses.replace(run, evaluation=Evaluation(8, keeps_logits=True, accumulated=4))
    assert lifetime(alone).limiting != "evaluation"
    assert lifetime(kept).limiting == "evaluation"
