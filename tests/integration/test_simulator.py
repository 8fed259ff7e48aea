"""The planner agrees with transformers' own Qwen3 run on fake tensors, storage by storage.

Models of few layers and a small vocabulary: next to their weights, what a step allocates weighs
more than in a real one, so that an error in it shows more.
"""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.memory.simulator import predicted, simulate
from palmswift.plan.memory import TrainingRun, predict
from palmswift.plan.shapes import Shape

_TIED = Shape(1024, 3, 16, 8, 128, 3072, 8192, True)
_WIDE = Shape(2560, 2, 32, 8, 128, 9728, 4096, False)
_NF4 = TrainingRun(_TIED, rank=16, length=512)
_LIGER = dataclasses.replace(_NF4, liger=True)
_BF16 = dataclasses.replace(_LIGER, quantized=False)
_FULL = TrainingRun(_TIED._replace(layers=6), 0, 512, quantized=False, full=True, dropout=0.0)
_WIDE_LIGER = TrainingRun(_WIDE, rank=8, length=2048, liger=True, dropout=0.0, lora_fp32=False)

_RUNS = {
    "NF4": _NF4,
    "NF4, a few supervised tokens": dataclasses.replace(_NF4, supervised=64, length=1024),
    "NF4, scales in fp32": dataclasses.replace(_NF4, double_quant=False, dropout=0.0),
    "NF4, Liger": _LIGER,
    "NF4, Liger, a long row": dataclasses.replace(_WIDE_LIGER, shape=_TIED, length=4096),
    "NF4, Liger, 8-bit Adam": dataclasses.replace(_LIGER, optimizer="adamw_8bit", rank=64),
    "NF4, paged Adam": dataclasses.replace(_NF4, optimizer="paged_adamw_32bit", rank=64),
    "NF4, AdamW with temporaries": dataclasses.replace(_NF4, optimizer="adamw_torch", length=32),
    "NF4, bf16 adapter": dataclasses.replace(_LIGER, lora_fp32=False),
    "bf16": _BF16,
    "bf16 without Liger": dataclasses.replace(_BF16, liger=False),
    "bf16 without dropout": dataclasses.replace(_BF16, dropout=0.0),
    "bf16, bf16 adapter": dataclasses.replace(_BF16, lora_fp32=False),
    "bf16, bf16 adapter, no dropout": dataclasses.replace(_BF16, lora_fp32=False, dropout=0.0),
    "wide": dataclasses.replace(_WIDE_LIGER, length=512),
    "wide, embedding on the CPU": dataclasses.replace(_WIDE_LIGER, embedding_on_cpu=True),
    "full": _FULL,
    "full, Liger": dataclasses.replace(_FULL, liger=True),
    "full in fp32": dataclasses.replace(_FULL, weights_fp32=True),
    "full, 8-bit Adam": dataclasses.replace(_FULL, optimizer="adamw_8bit", liger=True),
}


@pytest.mark.parametrize("run", list(_RUNS.values()), ids=list(_RUNS))
def test_the_planned_peak_is_within_a_percent_of_the_simulated_one(run: TrainingRun) -> None:
    simulated = simulate(run)
    assert predict(run).bytes == pytest.approx(max(simulated.values()), rel=0.01)


@pytest.mark.parametrize(
    "run",
    [
        dataclasses.replace(_LIGER, targets=("q_proj", "v_proj")),
        dataclasses.replace(_LIGER, accumulation=1, rank=64),
    ],
    ids=["attention alone", "nothing accumulated"],
)
def test_where_the_plan_is_an_upper_bound_it_is_close(run: TrainingRun) -> None:
    simulated = max(simulate(run).values())
    assert simulated <= predict(run).bytes <= 1.12 * simulated


@pytest.mark.parametrize("run", [_NF4, _BF16, _FULL], ids=["NF4", "bf16", "full"])
def test_what_stands_and_what_the_optimizer_adds_are_within_a_percent_too(run: TrainingRun) -> None:
    simulated, planned = simulate(run), predicted(predict(run))
    for phase in ("standing", "optimizer_step"):
        assert planned[phase] == pytest.approx(simulated[phase], rel=0.01)


@pytest.mark.parametrize(
    "lever",
    [
        {"checkpoint_offload": True},
        {"tiled_mlp": 256},
        {"checkpoint_offload": True, "tiled_mlp": 256},
    ],
    ids=["offload", "tiles", "both"],
)
def test_levers_save_what_is_planned(lever: dict[str, object]) -> None:
    plain = dataclasses.replace(_WIDE_LIGER, shape=_WIDE._replace(layers=6))
    pulled = dataclasses.replace(plain, **lever)  # type: ignore[arg-type]  # fields of the run
    saved = max(simulate(plain).values()) - max(simulate(pulled).values())
    assert saved > 0
    assert predict(pulled).bytes == pytest.approx(max(simulate(pulled).values()), rel=0.02)


def test_what_is_not_simulated_is_refused_by_name() -> None:
    run = dataclasses.replace(_NF4, batch=2, quant_bits=8)
    with pytest.raises(ValueError, match="batches above 1, 8-bit weights"):
        simulate(run)
