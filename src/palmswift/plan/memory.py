"""Predicts the peak of allocated GPU memory of one training step, term by term, in bytes.

A closed form of what transformers 5.19, PEFT 0.20, bitsandbytes 0.50 and Liger allocate in an
SFT step of a dense Qwen3 under ms-swift 4.6.0: one GPU, reentrant gradient checkpointing, SDPA
flash attention, logits of supervised tokens only. LoRA over NF4 equals an operation-by-operation
simulation to 0.02 % in six cases; 8-bit weights and batches above 1 are upper bounds. Nothing has
been measured on a GPU, where kernels' scratch and the allocator's rounding come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal, NamedTuple

from palmswift.plan.optimizers import Optimizer, OptimizerMemory, Trained, optimizer_memory
from palmswift.plan.shapes import Linear, Shape
from palmswift.plan.weights import LinearKind, dequantised_bytes, linear_bytes, weights_of

MIB = 2**20

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers of `target_modules: all-linear` (the head is left out)."""

_CUBLAS_WORKSPACE = 2 * 8519680  # forward and backward thread, sm_89
_OFFLOADED_IN_FLIGHT = 2  # layer inputs on the card: the one in use, the one that travels


class Evaluation(NamedTuple):
    """How rows are evaluated between training steps."""

    batch: int = 1
    keeps_logits: bool = False
    """Whether a metric wants every row's logits; the loss alone needs none to be kept."""
    accumulated: int = 1
    """Steps whose logits wait on the GPU before they go to the CPU (eval_accumulation_steps)."""


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
    """Linear layers in `quant_bits`; False: bf16."""
    double_quant: bool = True
    quant_bits: Literal[4, 8] = 4
    batch: int = 1
    """Rows of one micro step; more than one are padded, which leaves the flash path."""
    preference: bool = False
    """DPO: answers are judged beside a reference's, the adapter off; `batch` counts both."""
    full: bool = False
    """All weights are trained, without an adapter."""
    weights_fp32: bool = False
    """fp32 weights under bf16 autocast; only for full tuning."""
    embedding_on_cpu: bool = False
    checkpoint_offload: bool = False
    tiled_mlp: int | None = None
    """Tokens that go through an MLP at a time; None: all."""
    quantised_head: Literal["nf4"] | None = None
    evaluation: Evaluation | None = None

    @property
    def tokens(self) -> int:
        """Tokens of one micro step, padding included."""
        return self.batch * self.length

    @property
    def kept(self) -> int:
        """Positions of one micro step that get logits (swift/trainers/mixin.py).

        A single row's supervised ones and the last; of a batch all from the first supervised one.
        """
        if self.supervised is None or self.batch > 1:
            return self.tokens
        return min(self.tokens, self.supervised + 1)

    @property
    def bound(self) -> str:
        """Why its memory is an upper bound and no exact figure; empty where it is exact."""
        reasons = {
            "DPO's logits": self.preference,
            "padded batches": self.batch > 1 and not self.preference,
            "8-bit matrix products": self.quantized and self.quant_bits == 8,
            "a tiled MLP": self.tiled_mlp is not None,
            "a quantised head": self.quantised_head is not None,
        }
        return ", ".join(name for name, holds in reasons.items() if holds)

    @property
    def linear_kind(self) -> LinearKind:
        """How the linear layers of the decoder are kept."""
        if self.quantized:
            return "nf4" if self.quant_bits == 4 else "int8"
        return "fp32" if self.weights_fp32 else "bf16"


class Peak(NamedTuple):
    """Bytes that stand all along, and those of each phase; all named."""

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


def predict(run: TrainingRun) -> Peak:
    """The memory of `run`'s highest step (the second or later), by phase."""
    optimizer = optimizer_of(run)
    phases = _phases(run)
    phases["optimizer_step"] = {
        "gradients": gradient_bytes(run),
        "temporaries": optimizer.temporaries,
    }
    return Peak(standing_bytes(run), phases)


def standing_bytes(run: TrainingRun) -> dict[str, int]:
    """What lies on the card from the second step to the last."""
    trained = trained_numbers(run)
    return {
        **weight_bytes(run),
        "lora": 0 if run.full else trained.bytes_each * trained.numbers,
        "optimizer_state": optimizer_of(run).state,
        "workspace": _CUBLAS_WORKSPACE,
    }


def weight_bytes(run: TrainingRun) -> dict[str, int]:
    """Bytes of the model's weights on the card: NF4, 8-bit, bf16 or fp32 linear layers."""
    shape = run.shape
    weights = weights_of(shape, run.linear_kind, double_quant=run.double_quant)._asdict()
    if run.embedding_on_cpu and not shape.tied:
        weights["embedding"] = 0
    if run.quantised_head is not None and not shape.tied:
        weights["head"] = head_nf4_bytes(shape)
    return weights


def head_nf4_bytes(shape: Shape) -> int:
    """The head in NF4, which takes a plugin: bitsandbytes leaves it in 16 bits."""
    return linear_bytes(Linear(shape.hidden, shape.vocab), "nf4")


def lora_weights(run: TrainingRun) -> int:
    """How many numbers the adapter has."""
    per_rank = sum(linear.inputs + linear.outputs for linear in _targeted(run))
    return run.shape.layers * run.rank * per_rank


def trained_numbers(run: TrainingRun) -> Trained:
    """What the optimizer moves: the adapter, or all of the model."""
    if not run.full:
        return Trained(lora_weights(run), 4 if run.lora_fp32 else 2)
    shape = run.shape
    return Trained(shape.numbers, 4 if run.weights_fp32 else 2, shape.embedding_weights)


def gradient_bytes(run: TrainingRun) -> int:
    """All gradients, which have their parameters' type."""
    trained = trained_numbers(run)
    return trained.bytes_each * trained.numbers


def optimizer_of(run: TrainingRun) -> OptimizerMemory:
    """Bytes of the optimizer on what this run trains."""
    return optimizer_memory(run.optimizer, trained_numbers(run))


def forward_terms(run: TrainingRun, tokens: int) -> dict[str, int]:
    """One layer's forward pass over `tokens`, with what autocast keeps of the trained weights."""
    return {"autocast_cache": _cast_bytes(run), **_mlp_forward(run, tokens)}


def loss_terms(run: TrainingRun, tokens: int, kept: int) -> LossTerms:
    """Logits at `kept` of `tokens` positions, and what the cross entropy makes of them."""
    hidden, vocab = _hidden_bytes(run), run.shape.vocab
    states = hidden * kept
    if run.preference:
        # swift/rlhf_trainers/dpo_trainer.py: fp32 logits of the policy are kept while the
        # reference has its bf16 and fp32 ones and a row's softmax; backward four fp32 matrices
        norm = 3 * hidden * tokens
        return LossTerms(
            {"final_norm": norm, "kept_states": states, "logits": 12 * kept * vocab},
            {"final_norm": norm, "logits": 16 * kept * vocab},
        )
    if run.liger or run.quantised_head is not None:
        # liger_kernel/ops/fused_linear_cross_entropy.py: rows of logits a chunk
        chunk = 1 << (ceil(kept / ceil(vocab / run.shape.hidden)) - 1).bit_length()
        logits = 2 * min(kept, chunk) * vocab
        norm = 2 * hidden * tokens
        return LossTerms(
            {"final_norm": norm, "kept_states": 2 * states, "logits": logits}, {"logits": 0}
        )
    norm = 2 * hidden * tokens
    return LossTerms(
        {
            "final_norm": norm + hidden * tokens,
            "kept_states": states,
            "logits": 10 * kept * vocab,  # bf16, fp32 copy, log_softmax
        },
        {"final_norm": norm, "logits": 12 * kept * vocab},  # three fp32 matrices
    )


class LossTerms(NamedTuple):
    """Bytes at the height of the loss, forward and backward."""

    forward: dict[str, int]
    backward: dict[str, int]


def _phases(run: TrainingRun) -> dict[str, dict[str, int]]:
    tokens, layers = run.tokens, run.shape.layers
    everything = gradient_bytes(run)
    gradients = everything if run.accumulation > 1 else 0
    one_input = _hidden_bytes(run) * tokens
    in_flight = min(_OFFLOADED_IN_FLIGHT, layers)
    saved = one_input * (in_flight if run.checkpoint_offload else layers)
    loss = loss_terms(run, tokens, run.kept)
    cache = _cast_bytes(run)
    layer = _layer_terms(run)
    head = _head_gradient(run)
    phases = {
        "loss_forward": {
            "gradients": gradients,
            "layer_inputs": saved,
            "autocast_cache": cache,
            **loss.forward,
            **head.forward,
        },
        "loss_backward": {
            "gradients": gradients,
            "layer_inputs": saved,
            **loss.backward,
            **head.backward,
        },
        "layer_forward": {
            "gradients": gradients,
            "layer_inputs": saved,
            **forward_terms(run, tokens),
        },
        "layer_backward": {
            "gradients": max(gradients, everything // layers),
            "head_gradient": head.held,
            "layer_inputs": saved,
            **layer,
        },
        "last_layer_backward": {
            "gradients": everything,
            "head_gradient": head.held if run.accumulation > 1 else 0,
            "layer_inputs": in_flight * one_input,
            **layer,
        },
    }
    if run.full and not run.liger:
        phases["head_backward"] = {
            "gradients": gradients,
            "layer_inputs": saved,
            "logits": 6 * run.kept * run.shape.vocab,  # their gradient in fp32 and bf16
            "head_gradient": (6 if run.weights_fp32 else 2) * run.shape.embedding_weights,
        }
    if run.full:
        phases["embedding_backward"] = {
            "gradients": everything,
            "layer_inputs": one_input,
            "embedding_gradient": _embedding_gradients(run),
        }
    return phases


class _HeadGradient(NamedTuple):
    """What training the head adds to the loss and after it; nothing where it is frozen."""

    forward: dict[str, int]
    backward: dict[str, int]
    held: int
    """Its gradient while the layers' come."""


def _head_gradient(run: TrainingRun) -> _HeadGradient:
    """Of a tied head it waits for the embedding's, to which it is added before it accumulates."""
    if not run.full:
        return _HeadGradient({}, {}, 0)
    numbers = run.shape.embedding_weights
    size = _number(run) * numbers
    held = size if run.shape.tied or run.accumulation == 1 else 0
    if run.liger:  # computed with the loss, in the weight's type (addmm on sm_80 and newer)
        return _HeadGradient({"head_gradient": size}, {"head_gradient": size}, held)
    cast = 2 * numbers if run.weights_fp32 else 0  # saved for the backward pass
    return _HeadGradient({}, {"cast_head": cast}, held)


def _embedding_gradients(run: TrainingRun) -> int:
    """Gradients of the embedding beside the accumulated one: its own, the head's, their sum."""
    copies = (3 if run.shape.tied else 1) - (0 if run.accumulation > 1 else 1)
    return copies * _number(run) * run.shape.embedding_weights


def _layer_terms(run: TrainingRun) -> dict[str, int]:
    """Recompute and backward of one layer, at its height: in the MLP or in the attention."""
    heights = [*_mlp_heights(run), {"attention": _attention_backward(run)}]
    return {
        **max(heights, key=lambda terms: sum(terms.values())),
        "rotary": 2 * 2 * run.tokens * run.shape.head_dim,
        "autocast_cache": _cast_bytes(run) // run.shape.layers,
        "weight_gradient": _weight_gradient(run),
        "padding_mask": _padding_mask(run),
    }


def _mlp_heights(run: TrainingRun) -> list[dict[str, int]]:
    """Bytes at the three moments at down_proj that can be the highest, or of a tile of it."""
    shape, dropped = run.shape, run.dropout > 0
    hidden, query, key, wide = shape.hidden, shape.query, shape.key, shape.intermediate
    inner = (8 if run.liger else 10) * wide
    rest = 6 * hidden + 6 * query + 6 * key if run.liger else 12 * hidden + 8 * query + 8 * key
    # of each adapted linear layer: a mask and a dropped copy
    rest += 3 * (5 * hidden + query) if dropped else 4 * hidden
    rest += 4 * query if run.batch > 1 else 0  # keys and values repeated for each query head
    kernels = _int8_products(run, run.tokens)
    if run.quantized:
        kernels += dequantised_bytes(shape, 1)
    heights = [{"mlp": _tiled(run, inner, rest), "dequantised_weight": kernels}]
    if run.full:
        return heights
    # its input's gradients: the base's, the adapter's, their sum
    heights.append({"mlp": _tiled(run, inner + 2 * wide, rest)})
    scratch = (2 if run.liger else 4) * hidden
    if _casts_inputs(run):  # its input in fp32, dropped in fp32, the mask, in bf16
        copies = 0 if dropped else 10 * hidden + 2 * query  # bf16 inputs of the others are kept
        inner += (9 if dropped else 4) * wide
        heights.append({"mlp": _tiled(run, inner, rest + scratch + copies)})
    elif dropped:  # its result: the base's, the adapter's, the adapter's scaled
        heights.append({"mlp": _tiled(run, inner + wide, rest + scratch + 4 * hidden)})
    return heights


def _tiled(run: TrainingRun, inner: int, rest: int) -> int:
    """Bytes of `inner` ones a token of a tile, and `rest` a token of the whole row."""
    tokens = run.tokens
    whole = tokens * (inner + rest)
    if run.tiled_mlp is None:
        return whole
    # The tiles' outputs and input gradients are gathered into whole ones.
    gathered = tokens * (rest + 4 * run.shape.hidden)
    return min(whole, min(tokens, run.tiled_mlp) * inner + gathered)


def _casts_inputs(run: TrainingRun) -> bool:
    """Whether PEFT casts a layer's input to the adapter's fp32 before autocast makes it bf16.

    Its layer over unquantised weights does (tuners/lora/layer.py), those of bitsandbytes do not.
    """
    return run.lora_fp32 and not run.quantized and not run.full


def _attention_backward(run: TrainingRun) -> int:
    shape = run.shape
    hidden, query, key = shape.hidden, shape.query, shape.key
    if run.liger:
        bytes_a_token = 18 * query + 10 * key + 8 * hidden
    else:
        bytes_a_token = 20 * query + 12 * key + 10 * hidden
    bytes_a_token += 3 * 3 * hidden if run.dropout > 0 else 2 * hidden
    if run.batch > 1:  # repeated keys and values, and their gradients
        bytes_a_token += 8 * query
    return run.tokens * bytes_a_token


def _mlp_forward(run: TrainingRun, tokens: int) -> dict[str, int]:
    shape = run.shape
    hidden, wide = shape.hidden, shape.intermediate
    kernels = _int8_products(run, tokens)
    if run.quantized:
        kernels += dequantised_bytes(shape, 2)
    tile = min(tokens, run.tiled_mlp or tokens)
    gathered = 2 * hidden * tokens if tile < tokens else 0
    product = tile * 4 * wide + tokens * 6 * hidden + gathered + kernels
    combined = tile * _combined_width(run) + tokens * 4 * hidden + gathered
    if product >= combined:
        terms = {"mlp": product - kernels, "dequantised_weight": kernels}
    else:
        terms = {"mlp": combined}
    return {**terms, "padding_mask": _padding_mask(run)}


def _combined_width(run: TrainingRun) -> int:
    """Bytes a token of the MLP's wide tensors where no weight is dequantised."""
    wide = run.shape.intermediate
    if run.full:
        return 6 * wide  # gate, up, their product
    if _casts_inputs(run) and run.dropout > 0:
        return 12 * wide + 2 * run.shape.hidden  # down_proj's input in bf16 twice, in fp32 twice
    # gate; of up the base's result, the adapter's, and the adapter's scaled
    return 8 * wide + (4 * run.shape.hidden if _casts_inputs(run) else 0)


def _int8_products(run: TrainingRun, tokens: int) -> int:
    """LLM.int8() multiplies int8 rows into int32 ones before it scales them (an upper bound)."""
    eight_bit = run.quantized and run.quant_bits == 8
    return tokens * (4 * run.shape.intermediate + run.shape.hidden) if eight_bit else 0


def _padding_mask(run: TrainingRun) -> int:
    """A padded batch has a mask over all pairs of tokens: as booleans, and added to the scores."""
    return 3 * run.batch * run.length**2 if run.batch > 1 else 0


def _weight_gradient(run: TrainingRun) -> int:
    """The largest matrix's gradient before it is added to what has accumulated."""
    if not run.full:
        return 0
    weights = run.shape.hidden * run.shape.intermediate
    return (6 if run.weights_fp32 else 2) * weights


def _cast_bytes(run: TrainingRun) -> int:
    """bf16 copies of trained fp32 matrices, which autocast keeps during a forward pass."""
    if run.full:
        shape = run.shape
        return 2 * (shape.linear_weights + shape.embedding_weights) if run.weights_fp32 else 0
    return 2 * lora_weights(run) if run.lora_fp32 else 0


def _number(run: TrainingRun) -> int:
    """Bytes of a number outside quantised layers."""
    return 4 if run.weights_fp32 else 2


def _hidden_bytes(run: TrainingRun) -> int:
    """One token's hidden state between two layers."""
    return _number(run) * run.shape.hidden


def _targeted(run: TrainingRun) -> list[Linear]:
    return [linear for name, linear in run.shape.linears.items() if name in run.targets]
