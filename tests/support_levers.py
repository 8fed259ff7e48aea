"""A small Qwen3 with a LoRA adapter, and one step of its training."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

LAYERS = 3


class Step(NamedTuple):
    """What a forward and backward pass gave."""

    loss: torch.Tensor
    gradients: dict[str, torch.Tensor]


def base_model(*, tied: bool = False) -> Any:
    """The same weights each time."""
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=160,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            tie_word_embeddings=tied,
        )
    )


def adapted_model(
    *, dropout: float = 0.0, checkpointing: bool = True, reentrant: bool = True
) -> Any:
    """A LoRA adapter that is not zero, so that all of its matrices have gradients."""
    config = LoraConfig(
        r=4, target_modules="all-linear", lora_dropout=dropout, init_lora_weights=False
    )
    model = get_peft_model(base_model(), config)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    return model.train()


def train_step(model: Any, *, length: int = 37, seed: int = 1) -> Step:
    """One micro step on random rows; gradients are taken off the model."""
    device = model.get_output_embeddings().weight.device
    torch.manual_seed(seed)
    ids = torch.randint(0, 160, (2, length)).to(device)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    gradients = {
        name: weight.grad.detach().cpu()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad()
    return Step(loss.detach().cpu(), gradients)


def assert_same(one: Step, other: Step, tolerance: float = 0.0) -> None:
    """Losses and gradients are the same bits, or differ by a share of the largest number."""
    assert one.gradients.keys() == other.gradients.keys()
    assert one.gradients
    pairs = [(one.loss, other.loss)]
    pairs += [(one.gradients[name], other.gradients[name]) for name in one.gradients]
    for left, right in pairs:
        assert left.abs().max() > 0
        assert (left - right).abs().max() <= tolerance * left.abs().max()
