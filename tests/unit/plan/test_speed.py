from __future__ import annotations

import dataclasses

import pytest

from palmswift.plan.cards import CARDS, card_called, card_of_size
from palmswift.plan.memory import TrainingRun
from palmswift.plan.shapes import QWEN3
from palmswift.plan.speed import matmul_flops_per_token, speed_of

_8B = TrainingRun(QWEN3["8B"], 8, 1024, liger=True, dropout=0.0)


def test_a_token_of_8b_is_44_2_gflop_beside_adapter_and_attention() -> None:
    bare = dataclasses.replace(_8B, rank=0)
    assert matmul_flops_per_token(bare) == pytest.approx(44.2e9, rel=2e-3)


@pytest.mark.parametrize(("length", "tokens_a_second"), [(512, 381), (1024, 449), (2048, 493)])
def test_an_rtx_4060_is_as_fast_as_the_analysis_says_less_attention_and_adapter(
    length: int, tokens_a_second: int
) -> None:
    card = card_called("RTX 4060")
    assert card is not None
    speed = speed_of(dataclasses.replace(_8B, length=length), card)
    assert 0.9 * tokens_a_second < speed.tokens_per_second < tokens_a_second
    assert speed.limit == "compute"
    assert speed.seconds_per_step == pytest.approx(16 * length / speed.tokens_per_second)


@pytest.mark.parametrize("card", CARDS)
def test_no_card_is_faster_than_its_data_sheet(card: object) -> None:
    sheet = next(known for known in CARDS if known == card)
    speed = speed_of(_8B, sheet)
    assert speed.tokens_per_second * matmul_flops_per_token(_8B) < sheet.tflops * 1e12


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("NVIDIA GeForce RTX 4060", "RTX 4060"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
        ("Tesla T4", "T4"),
        ("rtx 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3060 Ti", None),
        ("NVIDIA H100 80GB HBM3", None),
    ],
)
def test_a_card_is_known_by_its_name_and_never_taken_for_another(
    said: str, name: str | None
) -> None:
    card = card_called(said)
    assert (card.name if card else None) == name


def test_an_8_gb_card_without_a_name_is_timed_as_an_rtx_4060() -> None:
    card = card_of_size(8188)
    assert card is not None
    assert card.name == "RTX 4060"
    assert card_of_size(5000) is None
