from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmswift.plan.memory import (
    MIB,
    TrainingRun,
    lora_weights,
    optimizer_of,
    predict,
    weight_bytes,
)
from palmswift.plan.optimizers import Optimizer
from palmswift.plan.shapes import QWEN3

# An operation-by-operation simulation of full-size models (transformers 5.19, torch autograd and
# checkpointing under FakeTensorMode); it has no optimizer and no cuBLAS workspace.
_SIMULATED = [
    (TrainingRun(QWEN3["8B"], 16, 1024), 8210),
    (TrainingRun(QWEN3["8B"], 64, 1024, supervised=128), 7957),
    (TrainingRun(QWEN3["8B"], 8, 2048, liger=True), 7080),
    (TrainingRun(QWEN3["8B"], 64, 1024, liger=True, dropout=0.0, lora_fp32=False), 7013),
    (TrainingRun(QWEN3["4B"], 16, 2048, supervised=512), 4055),
    (TrainingRun(QWEN3["4B"], 32, 2048, liger=True, dropout=0.0), 3710),
]


@pytest.mark.parametrize(("run", "simulated_mib"), _SIMULATED)
def test_the_closed_form_equals_the_simulation_to_a_thousandth(
    run: TrainingRun, simulated_mib: int
) -> None:
    peak = predict(dataclasses.replace(run, optimizer="sgd"))
    assert (peak.bytes - peak.standing["workspace"]) / MIB == pytest.approx(simulated_mib, rel=1e-3)


# The same of full tuning of 0.6B with gradients that accumulate: the higher of the forward and the
# backward pass, with bf16 weights and with fp32 weights under bf16 autocast.
_FULL = TrainingRun(
    QWEN3["0.6B"], 0, 256, optimizer="sgd", dropout=0.0, quantized=False, full=True
)  # fmt: skip
_FULL_SIMULATED = [
    (False, False, (3164.2, 4118.8, 9653.9)),
    (False, True, (3164.0, 3164.4, 3166.0)),
    (True, False, (6328.3, 7295.0, 12458.4)),
    (True, True, (6328.0, 6404.8, 6786.9)),
]


@pytest.mark.parametrize(("fp32", "liger", "simulated_mib"), _FULL_SIMULATED)
def test_full_tuning_equals_the_simulation_to_half_a_hundredth(
    fp32: bool, liger: bool, simulated_mib: tuple[float, ...]
) -> None:
    for length, expected in zip((256, 1024, 4096), simulated_mib, strict=True):
        run = dataclasses.replace(_FULL, length=length, liger=liger, weights_fp32=fp32)
        peak = predict(run)
        mib = (peak.bytes - peak.standing["workspace"]) / MIB
        assert mib == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("size", "linear", "total"),
    [
        ("0.6B", 440_401_920, 596_049_920),
        ("1.7B", 1_409_286_144, 1_720_574_976),
        ("4B", 3_633_315_840, 4_022_468_096),
        ("8B", 6_945_767_424, 8_190_735_360),
        ("14B", 13_212_057_600, 14_768_307_200),
    ],
)
def test_the_shapes_have_the_published_number_of_parameters(
    size: str, linear: int, total: int
) -> None:
    shape = QWEN3[size]
    assert shape.linear_weights == linear
    norms = shape.layers * (2 * shape.hidden + 2 * shape.head_dim) + shape.hidden
    embeddings = shape.embedding_weights * (1 if shape.tied else 2)
    assert linear + norms + embeddings == total


def test_an_8b_adapter_of_rank_16_has_43_646_976_numbers() -> None:
    assert lora_weights(TrainingRun(QWEN3["8B"], 16, 1024)) == 43_646_976


@pytest.mark.parametrize(("double_quant", "mib"), [(True, 5792), (False, 6101)])
def test_8b_in_nf4_weighs_what_the_literature_says(double_quant: bool, mib: int) -> None:
    run = TrainingRun(QWEN3["8B"], 16, 1024, double_quant=double_quant)
    assert sum(weight_bytes(run).values()) / MIB == pytest.approx(mib, abs=2)


def test_an_8_bit_optimizer_has_a_quarter_of_the_state() -> None:
    full = optimizer_of(TrainingRun(QWEN3["8B"], 64, 1024)).state
    small = optimizer_of(TrainingRun(QWEN3["8B"], 64, 1024, optimizer="adamw_8bit")).state
    assert full / MIB == pytest.approx(1332, abs=1)
    assert small / MIB == pytest.approx(338, abs=1)


@pytest.mark.parametrize(
    ("name", "bytes_a_number"),
    [
        ("adamw_torch_fused", 8.0),
        ("adamw_bnb_8bit", 2 + 8 / 256),
        ("paged_adamw", 8.0),
        ("lion_8bit", 1 + 4 / 256),
        ("paged_lion_32bit", 4.0),
        ("sgd", 0.0),
    ],
)
def test_an_optimizer_keeps_its_bytes_for_each_number(
    name: Optimizer, bytes_a_number: float
) -> None:
    run = TrainingRun(QWEN3["8B"], 16, 1024, optimizer=name)
    state = optimizer_of(run).state
    assert state == pytest.approx(bytes_a_number * 43_646_976, rel=1e-3)


@settings(max_examples=50)
@given(
    size=st.sampled_from(sorted(QWEN3)),
    rank=st.integers(1, 128),
    length=st.integers(1, 8192),
    liger=st.booleans(),
    quantized=st.booleans(),
)
def test_a_longer_row_or_a_larger_rank_never_needs_less(
    size: str, rank: int, length: int, liger: bool, quantized: bool
) -> None:
    run = TrainingRun(QWEN3[size], rank, length, liger=liger, quantized=quantized)
    peak = predict(run).bytes
    assert predict(dataclasses.replace(run, length=length + 64)).bytes > peak
    assert predict(dataclasses.replace(run, rank=rank + 1)).bytes > peak
    assert peak > sum(weight_bytes(run).values())
