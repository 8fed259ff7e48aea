"""What a model thinks of answers: how likely each is, and what it answers by itself.

A process of its own loads torch once for all questions: `python tests/support_scores.py` reads a
line of JSON (model folder, adapter folder or null, list of `Asked`) and prints a list of `Scored`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
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


class Scores:
    """Asks the process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, model: str, adapter: Path | None, asked: list[Asked]) -> list[Scored]:
        """What a model, with an adapter or without, thinks of each."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps([model, str(adapter) if adapter else None, asked]) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the process that scores has ended: its log says why"
        return [Scored(*one) for one in json.loads(line)]


@contextlib.contextmanager
def scores(log: Path) -> Iterator[Scores]:
    """The process, ended with the block; what it complains of stands in `log`."""
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Scores(process)
        finally:
            process.kill()
            process.communicate()


def main() -> None:
    """Answer each line of input."""
    for line in sys.stdin:
        folder, adapter, asked = json.loads(line)
        print(json.dumps(_scored(folder, adapter, [Asked(*one) for one in asked])), flush=True)


def _scored(folder: str, adapter: str | None, asked: list[Asked]) -> list[Scored]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    with torch.no_grad():
        return [_score(model, tokenizer, one) for one in asked]


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


if __name__ == "__main__":
    main()
