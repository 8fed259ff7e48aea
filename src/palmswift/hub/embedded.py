"""Make a small Qwen3 on the spot: the real architecture, random weights from a seed, own tokenizer.

Run as a child process, so that the front never imports torch:
`python -m palmswift.hub.embedded SPEC.json OUT`, where SPEC.json is an `EmbeddedModel`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palmswift.recipes.recipe import EmbeddedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Control tokens of ChatML, in the order in which Qwen3's vocabulary has them."""

THINK_TOKENS = ("<think>", "</think>")
"""Whole tokens in Qwen3 too, but ordinary text to a decoder: they are seen in a reply."""

_SCAFFOLD = ("system\n", "user\n", "assistant\n", "\n\n")
# Two Chinese characters of three bytes: longer merges would make whole answers single tokens,
# and a model that only has to name them learns nothing.
_LONGEST_TOKEN_BYTES = 6


def _texts(corpus: Sequence[Path]) -> Iterator[str]:
    for path in corpus:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                for message in json.loads(line)["messages"]:
                    yield message["content"]
    yield from _SCAFFOLD * 20


def _train_tokenizer(vocab_size: int, corpus: Sequence[Path]) -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import qwen3_chat_template

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *THINK_TOKENS],
        max_token_length=_LONGEST_TOKEN_BYTES,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.add_tokens([AddedToken(token, special=False) for token in THINK_TOKENS])
    fast.chat_template = qwen3_chat_template
    return fast


def build_embedded(spec: EmbeddedModel, corpus: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write config, weights (safetensors, float32), tokenizer and chat template to `out`.

    The chat template is Qwen3's own, as TRL carries it (trl/chat_template_utils.py). Returns the
    number of parameters and of vocabulary entries. The same spec gives the same bytes.
    """
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    tokenizer = _train_tokenizer(spec.vocab_size, corpus)
    torch.manual_seed(spec.seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_hidden_layers,
        num_attention_heads=spec.num_attention_heads,
        num_key_value_heads=spec.num_key_value_heads,
        head_dim=spec.head_dim,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "vocab_size": len(tokenizer)}


def main(argv: Sequence[str]) -> int:
    """Build what SPEC.json says into OUT and print the counts as JSON."""
    spec_file, out = argv
    spec = EmbeddedModel.model_validate_json(Path(spec_file).read_text(encoding="utf-8"))
    counts = build_embedded(spec, [Path(path) for path in spec.corpus], Path(out))
    sys.stdout.write(json.dumps(counts) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
