"""What a model thinks of answers: how likely each is, and what it answers by itself.

Run by `support_forks.py` as `score FOLDER ADAPTER ROWS`, in a process that has torch; ADAPTER may
be `-`. ROWS is a JSONL file of `Asked`; a line of JSON is printed for each, a `Scored`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

END = "<|im_end|>"


class Asked(NamedTuple):
    """A prompt as the template writes it, and answers to be judged."""

    prompt: str
    answers: list[str]


class Scored(NamedTuple):
    """Log-probability of each answer with its end, and the greedy answer."""

    logps: list[float]
    greedy: str


def chat(question: str, system: str | None = None, *, thinking: bool = False) -> str:
    """A question as Qwen3's template puts it, up to where the answer begins."""
    said = f"<|im_start|>system\n{system}{END}\n" if system else ""
    think = "" if thinking else "<think>\n\n</think>\n\n"
    return f"{said}<|im_start|>user\n{question}{END}\n<|im_start|>assistant\n{think}"


def main(words: list[str]) -> None:
    """Score each row and print what comes of it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, adapter, rows = words
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter != "-":
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    with torch.no_grad():
        for line in Path(rows).read_text(encoding="utf-8").splitlines():
            print(json.dumps(_score(model, tokenizer, Asked(*json.loads(line)))))


def _score(model: Any, tokenizer: Any, asked: Asked) -> Scored:
    import torch

    prompt = tokenizer(asked.prompt, add_special_tokens=False).input_ids
    logps = []
    for answer in asked.answers:
        ids = tokenizer(answer + END, add_special_tokens=False).input_ids
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])
        logps.append(float(chosen.sum()))
    written = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=64,
        do_sample=False,
    )
    text = tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=False)
    return Scored(logps, text.partition(END)[0])
