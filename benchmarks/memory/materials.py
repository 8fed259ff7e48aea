"""Makes what a measurement trains: a model of a real shape with random weights, and exact rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from palmswift.files import write_json, write_jsonl
from palmswift.plan.shapes import Shape

_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = ("<think>", "</think>")
_LETTER = "a"  # one token: the tokenizer has no merges
_SPREAD = 0.02
MODEL_PARTS = "model.safetensors.index.json"


class Overhead(NamedTuple):
    """Tokens that a template puts around one question and one answer."""

    tokens: int
    supervised: int
    """How many of them have a loss (the end of the turn)."""


def make_model(shape: Shape, folder: Path, *, seed: int = 0) -> None:
    """Write config, bf16 shards and tokenizer to `folder`; nothing when the model is there.

    Memory does not depend on what the weights are, so nothing has to be downloaded. One layer is
    in memory at a time.
    """
    if (folder / MODEL_PARTS).is_file():
        return
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    _save_tokenizer(folder, shape)
    generator = torch.Generator().manual_seed(seed)
    where: dict[str, str] = {}
    size = 0
    for number, part in enumerate(_parts(shape)):
        name = f"model-{number:05d}.safetensors"
        tensors = {key: _random(torch, generator, dimensions) for key, dimensions in part.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / MODEL_PARTS, {"metadata": {"total_size": size}, "weight_map": where})


def make_rows(path: Path, overhead: Overhead, *, length: int, supervised: int, rows: int) -> None:
    """`rows` rows of exactly `length` tokens, of which `supervised` have a loss.

    `ValueError` when the template leaves no room for that.
    """
    answer = supervised - overhead.supervised
    question = length - overhead.tokens - answer
    if answer < 1 or question < 1:
        raise ValueError(
            f"{length} tokens of which {supervised} are supervised cannot be made: the template "
            f"takes {overhead.tokens}, {overhead.supervised} of them supervised"
        )
    row = row_of(question, answer)
    write_jsonl(path, (row for _ in range(rows)))


def row_of(question: int, answer: int) -> dict[str, Any]:
    """A row whose question and answer have so many tokens."""
    return {
        "messages": [
            {"role": "user", "content": _LETTER * question},
            {"role": "assistant", "content": _LETTER * answer},
        ]
    }


def _random(torch: Any, generator: Any, dimensions: tuple[int, ...]) -> Any:
    if len(dimensions) == 1:  # a norm
        return torch.ones(dimensions, dtype=torch.bfloat16)
    weight = torch.empty(dimensions, dtype=torch.bfloat16)
    return weight.normal_(0.0, _SPREAD, generator=generator)


def _parts(shape: Shape) -> Iterator[dict[str, tuple[int, ...]]]:
    """Names and dimensions of Qwen3's tensors, a file at a time."""
    yield {"model.embed_tokens.weight": (shape.vocab, shape.hidden)}
    for index in range(shape.layers):
        layer = f"model.layers.{index}"
        part: dict[str, tuple[int, ...]] = {
            f"{layer}.{'mlp' if name in _MLP else 'self_attn'}.{name}.weight": (
                linear.outputs,
                linear.inputs,
            )
            for name, linear in shape.linears.items()
        }
        part |= {f"{layer}.self_attn.{name}.weight": (shape.head_dim,) for name in _HEAD_NORMS}
        part |= {f"{layer}.{name}.weight": (shape.hidden,) for name in _NORMS}
        yield part
    last: dict[str, tuple[int, ...]] = {"model.norm.weight": (shape.hidden,)}
    if not shape.tied:
        last["lm_head.weight"] = (shape.vocab, shape.hidden)
    yield last


_MLP = ("gate_proj", "up_proj", "down_proj")
_HEAD_NORMS = ("q_norm", "k_norm")
_NORMS = ("input_layernorm", "post_attention_layernorm")


def _save_tokenizer(folder: Path, shape: Shape) -> None:
    """Bytes as tokens, Qwen3's control tokens and chat template, and the config that fits both."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config
    from trl.chat_template_utils import qwen3_chat_template

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_CONTROL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.add_tokens([AddedToken(word, special=False) for word in _WORDS])
    fast.chat_template = qwen3_chat_template
    fast.save_pretrained(folder)
    config = Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        dtype="bfloat16",
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.query_heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=shape.tied,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )
    config.save_pretrained(folder)
