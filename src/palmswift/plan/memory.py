"""Predicts the peak of allocated GPU memory of one LoRA or QLoRA step, term by term, in bytes.

A closed form of what transformers 5.19, PEFT 0.20, bitsandbytes 0.50 and Liger allocate in an
SFT step of a dense Qwen3 under ms-swift 4.6.0: one GPU, reentrant gradient checkpointing, SDPA
flash attention, logits of supervised tokens only. It equals an operation-by-operation simulation
to 0.02 % in six cases; it has not been measured on a GPU, where kernels' scratch and the
allocator's rounding come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal, NamedTuple

from palmswift.plan.shapes import Linear, Shape

MIB = 2**20

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers of `target_modules: all-linear` (the head is left out)."""

Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "sgd",
]

_CUBLAS_WORKSPACE = 2 * 8519680  # forward and backward thread, sm_89
_ALLOCATION = 512  # the caching allocator's granularity
_BLOCK = 64  # weights that share one NF4 scale


@dataclass(frozen=True)
class TrainingRun:
    """What the memory of one training step depends on."""

    shape: Shape
    rank: int
    length: int
    """Tokens of the longest row."""
    supervised: int | None = None
    """Most tokens of a row that have a loss; None: all of them, the worst case."""
    optimizer: Optimizer = "adamw_torch_fused"
    liger: bool = False
    dropout: float = 0.05
    lora_fp32: bool = True
    accumulation: int = 16
    targets: tuple[str, ...] = TARGETS
    quantized: bool = True
    """NF4 linear layers; False: bf16."""
    double_quant: bool = True


class Peak(NamedTuple):
    """Bytes that stand all along, and those of each phase of a step; all named."""

    standing: dict[str, int]
    phases: dict[str, dict[str, int]]

    def total(self, phase: str) -> int:
        """Bytes allocated at the height of `phase`."""
        return sum(self.standing.values()) + sum(self.phases[phase].values())

    @property
    def limiting(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=self.total)

    @property
    def bytes(self) -> int:
        """The most that is allocated at any time."""
        return self.total(self.limiting)


class OptimizerMemory(NamedTuple):
    """Bytes of an optimizer's state, and of its temporaries while it steps."""

    state: int
    temporaries: int


def predict(run: TrainingRun) -> Peak:
    """The memory of `run`'s highest step (the second or later), by phase."""
    lora = lora_weights(run)
    lora_bytes = (4 if run.lora_fp32 else 2) * lora
    optimizer = optimizer_memory(run)
    standing = {
        **weight_bytes(run),
        "lora": lora_bytes,
        "optimizer_state": optimizer.state,
        "workspace": _CUBLAS_WORKSPACE,
    }
    phases = _phases(run, lora, lora_bytes)
    phases["optimizer_step"] = {
        "gradients": lora_bytes,
        "temporaries": optimizer.temporaries,
    }
    return Peak(standing, phases)


def weight_bytes(run: TrainingRun) -> dict[str, int]:
    """Bytes of the frozen weights: NF4 or bf16 linear layers, all else bf16."""
    shape = run.shape
    layer = sum(
        _nf4_bytes(linear, run.double_quant) if run.quantized else 2 * linear.weights
        for linear in shape.linears.values()
    )
    norms = 2 * _rounded(2 * shape.hidden) + 2 * _ALLOCATION  # q_norm and k_norm are tiny
    embedding = 2 * shape.embedding_weights
    return {
        "linear_layers": shape.layers * layer,
        "embedding": 0 if shape.tied else embedding,
        "head": embedding,
        "norms": shape.layers * norms + _rounded(2 * shape.hidden),
    }


def lora_weights(run: TrainingRun) -> int:
    """How many numbers the adapter has."""
    per_rank = sum(linear.inputs + linear.outputs for linear in _targeted(run))
    return run.shape.layers * run.rank * per_rank


def optimizer_memory(run: TrainingRun) -> OptimizerMemory:
    """Bytes of the optimizer. Paged state is counted, since it lies on the GPU when touched.

    torch's AdamW keeps two moments in the parameter's type; bitsandbytes' 8-bit one keeps two
    bytes a number and 8 bytes a block of 256 (bitsandbytes/optim/optimizer.py).
    """
    numbers = lora_weights(run)
    parameter = 4 if run.lora_fp32 else 2
    eight_bit = 2 * numbers + 8 * numbers // 256
    return {
        "adamw_torch": OptimizerMemory(2 * parameter * numbers, parameter * numbers),
        "adamw_torch_fused": OptimizerMemory(2 * parameter * numbers, 0),
        "adamw_8bit": OptimizerMemory(eight_bit, 0),
        "paged_adamw_32bit": OptimizerMemory(8 * numbers, 0),
        "paged_adamw_8bit": OptimizerMemory(eight_bit, 0),
        "sgd": OptimizerMemory(0, 0),
    }[run.optimizer]


def _phases(run: TrainingRun, lora: int, lora_bytes: int) -> dict[str, dict[str, int]]:
    shape, tokens = run.shape, run.length
    hidden = shape.hidden
    gradients = lora_bytes if run.accumulation > 1 else 0
    first_gradients = max(gradients, lora_bytes // shape.layers)
    saved = 2 * hidden * tokens * shape.layers
    cache = 2 * lora if run.lora_fp32 else 0  # autocast keeps bf16 copies during the forward pass
    forward, backward = _loss_terms(run)
    layer = _layer_terms(run, lora)
    dequantised = _largest_dequantised(shape, 2) if run.quantized else 0
    return {
        "loss_forward": {
            "gradients": gradients,
            "layer_inputs": saved,
            "autocast_cache": cache,
            **forward,
        },
        "loss_backward": {"gradients": gradients, "layer_inputs": saved, **backward},
        "layer_forward": {
            "gradients": gradients,
            "layer_inputs": saved,
            "autocast_cache": cache,
            "mlp": tokens * (4 * shape.intermediate + 6 * hidden),
            "dequantised_weight": dequantised,
        },
        "layer_backward": {"gradients": first_gradients, "layer_inputs": saved, **layer},
        "last_layer_backward": {
            "gradients": lora_bytes,
            "layer_inputs": 2 * 2 * hidden * tokens,
            **layer,
        },
    }


class _LossTerms(NamedTuple):
    forward: dict[str, int]
    backward: dict[str, int]


def _loss_terms(run: TrainingRun) -> _LossTerms:
    """Logits and what the cross entropy makes of them: 12 bytes a supervised token and word."""
    hidden, vocab, tokens = run.shape.hidden, run.shape.vocab, run.length
    supervised = tokens if run.supervised is None else min(tokens, run.supervised + 1)
    kept = 2 * hidden * supervised
    if run.liger:
        # liger_kernel/ops/fused_linear_cross_entropy.py: rows of logits a chunk
        chunk = 1 << (ceil(supervised / ceil(vocab / hidden)) - 1).bit_length()
        logits = 2 * min(supervised, chunk) * vocab
        norm = 2 * 2 * hidden * tokens
        return _LossTerms(
            {"final_norm": norm, "kept_states": 2 * kept, "logits": logits}, {"logits": 0}
        )
    norm = 4 * hidden * tokens
    return _LossTerms(
        {
            "final_norm": norm + 2 * hidden * tokens,
            "kept_states": kept,
            "logits": 10 * supervised * vocab,  # bf16, fp32 copy, log_softmax
        },
        {"final_norm": norm, "logits": 12 * supervised * vocab},  # three fp32 matrices
    )


def _layer_terms(run: TrainingRun, lora: int) -> dict[str, int]:
    """Recompute and backward of one layer: at the MLP or at the attention, whichever is more."""
    shape, tokens = run.shape, run.length
    hidden, wide, query, key = shape.hidden, shape.intermediate, shape.query, shape.key
    if run.liger:
        mlp = 8 * wide + 6 * hidden + 6 * query + 6 * key
        attention = 18 * query + 10 * key + 8 * hidden
    else:
        mlp = 10 * wide + 12 * hidden + 8 * query + 8 * key
        attention = 20 * query + 12 * key + 10 * hidden
    if run.dropout > 0:  # a mask and a dropped copy for each adapted linear layer
        mlp += 3 * (5 * hidden + query)
        attention += 3 * 3 * hidden
    else:
        mlp += 4 * hidden
        attention += 2 * hidden
    dequantised = _largest_dequantised(shape, 1) if run.quantized else 0
    casts = 2 * lora // shape.layers if run.lora_fp32 else 0
    rotary = {"rotary": 2 * 2 * tokens * shape.head_dim, "autocast_cache": casts}
    if tokens * mlp + dequantised >= tokens * attention:
        return {"mlp": tokens * mlp, "dequantised_weight": dequantised, **rotary}
    return {"attention": tokens * attention, **rotary}


def _largest_dequantised(shape: Shape, absmax_copies: int) -> int:
    """bf16 copy of the largest NF4 matrix, with its scales in fp32."""
    weights = shape.hidden * shape.intermediate
    return 2 * weights + absmax_copies * 4 * weights // _BLOCK


def _nf4_bytes(linear: Linear, double_quant: bool) -> int:
    """One NF4 matrix of bitsandbytes: packed weights, code book, scales."""
    blocks = ceil(linear.weights / _BLOCK)
    packed = _rounded(ceil(linear.weights / 2)) + _ALLOCATION
    if not double_quant:
        return packed + _rounded(4 * blocks)
    nested = _rounded(4 * ceil(blocks / 256)) + 1024 + _ALLOCATION  # scales of scales, code, offset
    return packed + _rounded(blocks) + nested


def _targeted(run: TrainingRun) -> list[Linear]:
    return [linear for name, linear in run.shape.linears.items() if name in run.targets]


def _rounded(size: int) -> int:
    return ceil(size / _ALLOCATION) * _ALLOCATION
