"""Levers on a CUDA card: the same numbers, and the memory that they are for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support_levers import LAYERS, adapted_model, assert_same, train_step

from palmswift.launchers.plugins import checkpoint_offload, embedding_on_cpu, gpu_cap, tiled_mlp

pytestmark = pytest.mark.gpu

CARD = torch.device("cuda:0")

ATOMICS = 1e-4
"""Share by which two runs of the same backward pass differ: attention adds in any order."""


def _on_card(**settings: Any) -> Any:
    return adapted_model(**settings).to(CARD)


def test_an_embedding_on_the_cpu_gives_the_same_and_frees_its_memory() -> None:
    plain, moved = _on_card(), _on_card()
    before = torch.cuda.memory_allocated(CARD)
    size = embedding_on_cpu.keep_on_cpu(moved)
    assert before - torch.cuda.memory_allocated(CARD) >= size
    assert_same(train_step(moved), train_step(plain), ATOMICS)


def test_what_is_parked_comes_back_bit_by_bit_however_busy_the_card_is() -> None:
    inputs = checkpoint_offload.LayerInputs(checkpoint_offload.copies_for(CARD))
    busy = torch.randn(4096, 4096, device=CARD)
    for _ in range(20):
        parked, sent = [], []
        for _ in range(8):
            tensor = (busy @ busy).to(torch.bfloat16)
            sent.append(tensor.cpu())
            parked.append(inputs.park(tensor))
            del tensor
            busy = busy @ busy / 64
            busy /= busy.norm(dim=1, keepdim=True)
        for one, before in zip(reversed(parked), reversed(sent), strict=True):
            came = inputs.bring(one)
            busy = busy @ busy
            busy /= busy.norm(dim=1, keepdim=True)
            assert torch.equal(came.cpu(), before)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_training_with_offloaded_layer_inputs_is_the_same(reentrant: bool) -> None:
    plain, moved = _on_card(reentrant=reentrant), _on_card(reentrant=reentrant)
    inputs = checkpoint_offload.offload(moved, checkpoint_offload.copies_for(CARD))
    for seed, length in enumerate((900, 4000, 300, 4000)):
        one = train_step(moved, length=length, seed=seed)
        assert_same(one, train_step(plain, length=length, seed=seed), ATOMICS)
    assert len(inputs.free) == LAYERS
    assert all(buffer.is_pinned() for buffer in inputs.free)


def test_offloaded_layer_inputs_take_less_of_the_card() -> None:
    taken = []
    for lever in (False, True):
        model = _on_card()
        if lever:
            checkpoint_offload.offload(model, checkpoint_offload.copies_for(CARD))
        ids = torch.zeros(1, 20_000, dtype=torch.long, device=CARD)
        hidden = model.get_base_model().model
        kept = hidden(input_ids=ids).last_hidden_state.sum()
        taken.append(torch.cuda.memory_allocated(CARD))
        del model, hidden, kept
    one_input = 20_000 * 64 * 4
    assert taken[0] - taken[1] >= (LAYERS - 2) * one_input


def test_tiled_mlps_give_the_same_within_rounding() -> None:
    plain, tiled = _on_card(), _on_card()
    tiled_mlp.tile_mlps(tiled, 16)
    assert_same(train_step(tiled), train_step(plain), 1e-4)


def test_a_capped_card_runs_out_where_a_small_one_would() -> None:
    uncapped = torch.cuda.mem_get_info
    try:
        gpu_cap.cap(256)
        assert torch.cuda.mem_get_info()[1] == 256 << 20
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(300 << 20, dtype=torch.uint8, device=CARD)
    finally:
        torch.cuda.mem_get_info = uncapped
        torch.cuda.set_per_process_memory_fraction(1.0)
