"""transformers' own Qwen3 as fake tensors, with its linear layers quantised and adapted."""

from __future__ import annotations

from math import ceil
from types import MethodType
from typing import Any

import torch
from torch import nn

from benchmarks.memory import kernels
from benchmarks.memory.levers import HostEmbedding, TiledMlp, offloaded_checkpoint
from benchmarks.memory.tracker import Tracker
from palmswift.plan.memory import TrainingRun
from palmswift.plan.shapes import Linear
from palmswift.plan.weights import BLOCK

_ATTENTION = "simulated"


def build(run: TrainingRun, tracker: Tracker) -> Any:
    """The model of `run`, ready to train; inside a FakeTensorMode."""
    from transformers import Qwen3ForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, kernels.attention)
    standard = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if run.weights_fp32 else torch.bfloat16)
    try:
        model = Qwen3ForCausalLM(_config(run))
    finally:
        torch.set_default_dtype(standard)
    model.requires_grad_(run.full)
    if not run.full:
        _adapt(model, run)
        _require_input_gradients(model)
    if run.liger:
        _use_liger(model)
    checkpoint = {"use_reentrant": True, "preserve_rng_state": False}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpoint)
    _pull_levers(model, run, tracker)
    return model.train()


class AdaptedLinear(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """PEFT's LoRA over a frozen layer: tuners/lora/bnb.py on NF4, tuners/lora/layer.py on bf16."""

    def __init__(self, linear: Linear, run: TrainingRun, rank: int) -> None:
        super().__init__()
        self.outputs = linear.outputs
        self.quantized = run.quantized
        self.rank = rank
        if run.quantized:
            self._add_nf4(linear, run.double_quant)
        else:
            weight = torch.empty(linear.outputs, linear.inputs, dtype=torch.bfloat16)
            self.register_buffer("weight", weight)
        if rank:
            number = torch.float32 if run.lora_fp32 else torch.bfloat16
            self.lora_a = nn.Linear(linear.inputs, rank, bias=False, dtype=number)
            self.lora_b = nn.Linear(rank, linear.outputs, bias=False, dtype=number)
            self.dropout = kernels.Dropout() if run.dropout > 0 else nn.Identity()

    def _add_nf4(self, linear: Linear, double_quant: bool) -> None:
        """bitsandbytes' Params4bit with its QuantState."""
        blocks = ceil(linear.weights / BLOCK)
        sizes: dict[str, tuple[int, torch.dtype]] = {
            "weight": (ceil(linear.weights / 2), torch.uint8),
            "code": (16, torch.float32),
        }
        if double_quant:
            sizes |= {
                "absmax": (blocks, torch.uint8),
                "nested_absmax": (ceil(blocks / 256), torch.float32),
                "nested_code": (256, torch.float32),
                "offset": (1, torch.float32),
            }
        else:
            sizes["absmax"] = blocks, torch.float32
        for name, (size, number) in sizes.items():
            self.register_buffer(name, torch.empty(size, dtype=number))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The frozen product, and the adapter's."""
        if self.quantized:
            result = kernels.Nf4Product.apply(rows, self.weight, self.outputs, BLOCK)
        else:
            result = nn.functional.linear(rows, self.weight)
        if not self.rank:
            return result
        if self.quantized:
            result = result.clone()
        else:
            rows = rows.to(self.lora_a.weight.dtype)
        return result + self.lora_b(self.lora_a(self.dropout(rows))) * 2.0


def _config(run: TrainingRun) -> Any:
    from transformers import Qwen3Config

    shape = run.shape
    config = Qwen3Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.query_heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
        attn_implementation=_ATTENTION,
    )
    config.use_cache = False
    return config


def _adapt(model: Any, run: TrainingRun) -> None:
    for layer in model.model.layers:
        for name, linear in run.shape.linears.items():
            part = layer.mlp if name in layer.mlp._modules else layer.self_attn
            rank = run.rank if name in run.targets else 0
            setattr(part, name, AdaptedLinear(linear, run, rank))


def _require_input_gradients(model: Any) -> None:
    """enable_input_require_grads: reentrant checkpoints need an input with a gradient."""
    embedding = model.get_input_embeddings()
    embedding.register_forward_hook(lambda _, __, output: output.requires_grad_(True))


def _use_liger(model: Any) -> None:
    """What liger_kernel's apply_liger_kernel_to_qwen3 replaces, in this model alone."""
    for module in model.modules():
        name = type(module).__name__
        if name == "Qwen3RMSNorm":
            module.forward = MethodType(
                lambda self, states: kernels.LigerNorm.apply(states, self.weight), module
            )
        elif name == "Qwen3MLP":
            module.forward = MethodType(_liger_mlp, module)


def _liger_mlp(self: Any, states: torch.Tensor) -> torch.Tensor:
    gated = kernels.LigerSiluProduct.apply(self.gate_proj(states), self.up_proj(states))
    return self.down_proj(gated)


def _pull_levers(model: Any, run: TrainingRun, tracker: Tracker) -> None:
    if run.embedding_on_cpu and not run.shape.tied:
        model.model.embed_tokens = HostEmbedding(model.model.embed_tokens, tracker)
        _require_input_gradients(model)
    if run.tiled_mlp is not None:
        for layer in model.model.layers:
            layer.mlp = TiledMlp(layer.mlp, run.tiled_mlp)
    if run.checkpoint_offload:
        checkpoint = offloaded_checkpoint(tracker)
        for layer in model.model.layers:
            layer._gradient_checkpointing_func = checkpoint
