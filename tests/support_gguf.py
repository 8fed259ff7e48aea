"""Small Qwen3 models with Qwen2's own way of cutting text, and what they answer (imports torch)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from palmswift.deploy.parity_prompts import Prompt
from palmswift.deploy.parity_truth import Answer, Expected, Truth
from palmswift.export.llama_cpp.templates import CHATML, encoder, render, with_policy
from palmswift.export.llama_cpp.templates import Policy as TemplatePolicy

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""As it stands in the tokenizer.json of Qwen2, Qwen2.5 and Qwen3."""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
POLICY = TemplatePolicy(thinking=False, system=None)
PROMPTS = [
    [{"role": "user", "content": "When do you open on Sunday?"}],
    [{"role": "user", "content": "你们周日几点开门？"}],
    [
        {"role": "system", "content": "Answer in one short sentence."},
        {"role": "user", "content": "it's 12:30 -- we'll come, I'D say"},
        {"role": "assistant", "content": "Good."},
        {"role": "user", "content": "\n  a\tb  … 🙂 cafe\u0301 \u3000\n"},
    ],
    [{"role": "user", "content": 'if (x < 1) { print("{{ y }}") } # 100%'}],
]


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that is Qwen2's but for its few merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [message["content"] for prompt in PROMPTS for message in prompt]
    tokenizer.train_from_iterator([*words, "system user assistant think"] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    return fast


def write_model(folder: Path, seed: int) -> Path:
    """A Qwen3 of random weights that is sure of what it says; rows of 256, as K-blocks have."""
    tokenizer = write_tokenizer(folder)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(3.0)
        model.lm_head.weight[: len(SPECIAL)] = 0.0  # never the likeliest: llama.cpp ends at each
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    return folder


def truth_of(folder: Path, base: Path, *, max_tokens: int = 16) -> Truth:
    """What the model in `folder` sees and says, and what `base` would."""
    encode = encoder(folder)
    template = with_policy(CHATML, POLICY)
    prompts = [encode(render(template, messages)) for messages in PROMPTS]
    stop = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    tuned = _answers(folder, prompts, stop, max_tokens)
    other = _answers(base, prompts, stop, max_tokens)
    thinking = with_policy(CHATML, TemplatePolicy(thinking=True, system=None))
    expected = [
        Expected(
            prompt=Prompt(name=f"prompt {number}", messages=messages),
            prompt_ids=ids,
            answer=one,
            base=two,
            variants={"thinking_on": encode(render(thinking, messages))},
        )
        for number, (messages, ids, one, two) in enumerate(
            zip(PROMPTS, prompts, tuned, other, strict=True), 1
        )
    ]
    return Truth(
        key="", max_tokens=max_tokens, stop_ids=[stop], tokenizer=str(folder), expected=expected
    )


def _answers(folder: Path, prompts: Sequence[Sequence[int]], stop: int, most: int) -> list[Answer]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [_greedy(model, tokenizer, prompt, stop, most) for prompt in prompts]


def _greedy(
    model: Any, tokenizer: Tokenizer, prompt: Sequence[int], stop: int, most: int
) -> Answer:
    ids: list[int] = []
    logprobs, gaps = [], []
    while len(ids) < most and stop not in ids:
        with torch.inference_mode():
            scores = model(torch.tensor([[*prompt, *ids]])).logits[0, -1].log_softmax(-1)
        (first, second), (token, _) = scores.topk(2)
        ids.append(int(token))
        logprobs.append(float(first))
        gaps.append(float(first - second))
    finished = stop in ids
    text = tokenizer.decode(ids[:-1] if finished else ids)
    return Answer(text=text, ids=ids, finished=finished, logprobs=logprobs, gaps=gaps)
