"""Bytes that a served dense Qwen3 takes on one GPU: the formulas of each backend, with sources.

Weights and KV cache are exact. What kernels, sampling and CUDA graphs take beside them are
estimates; a published log of vLLM's own measurement agrees with their sum (tests/unit/plan).
"""

from __future__ import annotations

from math import ceil
from typing import Literal, NamedTuple, get_args

from palmswift.plan.memory import MIB, TARGETS
from palmswift.plan.shapes import Shape
from palmswift.plan.weights import dequantised_bytes, weights_of

Backend = Literal["transformers", "vllm", "llama.cpp"]
Gguf = Literal["f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]
ServedWeights = Literal["bf16", "bnb-4bit", "bnb-8bit", "awq", "gptq", "fp8", Gguf]

WEIGHTS_OF: dict[Backend, tuple[ServedWeights, ...]] = {
    "transformers": ("bf16", "bnb-4bit", "bnb-8bit", "awq", "gptq"),
    "vllm": ("bf16", "bnb-4bit", "awq", "gptq", "fp8"),
    "llama.cpp": get_args(Gguf),
}
"""What each backend computes with. vLLM quantises by bitsandbytes to 4 bits alone."""

_BATCHED_TOKENS = 2048
"""Tokens that vLLM takes through the model at a time: max_num_batched_tokens of a server on a card
of less than 70 GiB (vllm/engine/arg_utils.py, get_batch_defaults)."""

SEQUENCES = 256
"""vLLM's max_num_seqs where nothing is said (same place)."""

_GROUP = 128
"""Weights that share a 16-bit scale and a 4-bit zero point in AWQ and GPTQ."""

_GRAPH_BYTES = 6 * MIB
"""One CUDA graph of an 8B model: vLLM estimated 0.52 GiB for 51 + 35 (LMCache issue 3430)."""

_LIBRARIES_BYTES = 130 * MIB
"""Kernels, their modules and workspaces in vLLM's process, past the CUDA context (same log)."""

_CUBLAS_BYTES = 8519680
"""cuBLAS' workspace of one thread."""

_BLOCK = 16
"""Tokens of a block of vLLM's KV cache (vllm/config/cache.py)."""

_UBATCH = 512
"""Tokens that llama.cpp takes through the model at a time (--ubatch-size)."""

_BITS: dict[str, float] = {"f16": 16, "q8_0": 8.5, "q6_k": 6.5625, "q5_k": 5.5, "q4_k": 4.5}
"""Bits a weight of ggml's types, scales included (ggml/src/ggml-common.h)."""


class Served(NamedTuple):
    """What decides a server's memory."""

    shape: Shape
    backend: Backend
    weights: ServedWeights
    rank: int = 0
    """Of the adapter; 0: there is none."""
    adapters: int = 1
    eager: bool = False
    """vLLM without CUDA graphs (vllm_enforce_eager)."""
    batched_tokens: int = _BATCHED_TOKENS


def kv_bytes_per_token(shape: Shape) -> int:
    """Keys and values of one token in all layers, in 16 bits."""
    return 2 * 2 * shape.key * shape.layers


def served_weight_bytes(shape: Shape, weights: ServedWeights) -> int:
    """The model's weights on the card.

    Embedding and head stay in 16 bits in all but GGUF, of which llama.cpp keeps the embedding in
    host memory where the model has a head of its own.
    """
    if weights in get_args(Gguf):
        embedding = 0 if shape.tied else _gguf_embedding(shape, weights)
        return gguf_bytes(shape, weights) - embedding
    if weights == "bf16":
        return weights_of(shape, "bf16").total
    four_bit = weights_of(shape, "nf4")
    if weights == "bnb-4bit":
        return four_bit.total
    if weights == "bnb-8bit":
        return weights_of(shape, "int8").total
    linear = shape.linear_weights
    if weights == "fp8":  # a byte a weight and an fp32 scale a channel
        rows = shape.layers * sum(each.outputs for each in shape.linears.values())
        quantised = linear + 4 * rows
    else:
        quantised = linear // 2 + linear // _GROUP * 2 + linear // _GROUP // 2
    return four_bit.total - four_bit.linear_layers + quantised


def gguf_bytes(shape: Shape, kind: str) -> int:
    """The tensors of a GGUF file as llama-quantize mixes their types (src/llama-quant.cpp).

    The head is in Q6_K; of the values' and the down projections, Q4_K_M and Q5_K_M keep those of
    the first and last eighth of the layers, and every third between, in Q6_K.
    """
    plain = kind.removesuffix("_m")
    mixed = kind.endswith("_m")
    bits = 0.0
    for layer in range(shape.layers):
        for name, linear in shape.linears.items():
            better = mixed and name in ("v_proj", "down_proj") and _more_bits(layer, shape.layers)
            bits += linear.weights * _BITS["q6_k" if better else plain]
    head = shape.embedding_weights * _BITS["q6_k" if mixed else plain]
    norms = 32 * shape.norm_weights
    embedding = 0 if shape.tied else 8 * _gguf_embedding(shape, kind)
    return round((bits + head + norms + embedding) / 8)


def _gguf_embedding(shape: Shape, kind: str) -> int:
    return round(shape.embedding_weights * _BITS[kind.removesuffix("_m")] / 8)


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def standing_bytes(served: Served, requests: int) -> dict[str, int]:
    """What is there before the first request, made ready for so many at a time."""
    shape = served.shape
    terms = {
        "weights": served_weight_bytes(shape, served.weights),
        "adapter": _adapter_bytes(served),
    }
    if served.backend == "llama.cpp":
        # fp32 logits of a part of the prompt, and its hidden states
        terms["compute_buffer"] = _UBATCH * 4 * (shape.vocab + shape.hidden)
        return terms
    terms["workspace"] = _CUBLAS_BYTES
    if served.weights in ("bnb-4bit", "bnb-8bit"):
        terms["dequantised_weight"] = dequantised_bytes(shape, 1)
    if served.backend == "vllm":
        terms["activations"] = _vllm_activations(served, requests)
        terms["cuda_graphs"] = 0 if served.eager else _graphs(served, requests) * _GRAPH_BYTES
        terms["libraries"] = _LIBRARIES_BYTES
    return terms


def request_bytes(served: Served, requests: int, tokens: int) -> int:
    """What `requests` at a time of `tokens` each take: KV cache, and where it grows, the rest."""
    each = kv_bytes_per_token(served.shape)
    if served.backend == "vllm":
        # one block of the pool stays empty (vllm/v1/core/block_pool.py)
        return (requests * ceil(tokens / _BLOCK) + 1) * _BLOCK * each
    if served.backend == "llama.cpp":
        return requests * ceil(tokens / 256) * 256 * each
    shape = served.shape
    # The cache grows by torch.cat, a layer at a time (transformers/cache_utils.py). The prompt is
    # read at once, with keys and values of a layer repeated for each query head.
    kv = each * tokens * requests * (shape.layers + 1) // shape.layers
    forward = (_layer_bytes(shape) + 4 * shape.query) * tokens * requests
    # A padded batch has a mask, in bool and in 16 bits.
    mask = 0 if requests == 1 else 3 * requests * tokens * tokens
    logits = 10 * shape.vocab * requests
    return kv + forward + mask + logits


def _vllm_activations(served: Served, requests: int) -> int:
    """The peak of vLLM's own trial run, which it keeps free (v1/worker: gpu_worker.py,
    determine_available_memory; gpu_model_runner.py, profile_run).

    Either the model takes the most tokens, or the sampler the most requests: 16-bit and fp32
    logits, probabilities and random numbers beside them (v1/sample), with the hidden states there.
    """
    shape, tokens = served.shape, served.batched_tokens
    sampler = requests * shape.vocab * 14 + 2 * tokens * shape.hidden
    return max(tokens * _layer_bytes(shape), sampler)


def _layer_bytes(shape: Shape) -> int:
    """A token's way through the widest part of a layer: gate, up and product; the stream twice."""
    return 6 * shape.intermediate + 4 * shape.hidden


def _adapter_bytes(served: Served) -> int:
    shape, rank = served.shape, served.rank
    if rank == 0 or served.backend == "llama.cpp":  # GGUF has it merged
        return 0
    linears = (shape.linears[name] for name in TARGETS)
    numbers = shape.layers * rank * sum(each.inputs + each.outputs for each in linears)
    if served.backend == "transformers":
        return 4 * numbers  # PEFT keeps it in fp32
    # A slot for each, of every linear layer, embedding and head (vllm/lora/layers)
    return 2 * served.adapters * (numbers + 2 * rank * (shape.hidden + shape.vocab))


def _graphs(served: Served, requests: int) -> int:
    """How many CUDA graphs vLLM captures (vllm/config/vllm.py, _set_cudagraph_sizes).

    For mixed batches up to twice the requests, for decoding up to the requests; with adapters each
    with and without (v1/cudagraph_dispatcher.py).
    """
    largest = min(2 * requests, 512)
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    mixed = len([size for size in sizes if size <= largest])
    decoding = len([size for size in sizes if size <= requests])
    return (mixed + decoding) * (2 if served.rank else 1)
