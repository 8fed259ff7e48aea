"""The process in which a model from a folder takes the losses of texts (eval.perplexity)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer

from palmswift.eval.json_child import answer_questions
from palmswift.eval.measures.pieces import Unusable, cut, marked, thinking_of, trained_prompt


class Model:
    """A causal language model with its tokenizer and chat template."""

    def __init__(self, path: str) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        if not self.tokenizer.chat_template:
            raise ValueError("its tokenizer has no chat template")
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()
        self.model.to(self.device)

    def loss(self, prompt: list[dict[str, Any]], text: str) -> tuple[float, int] | str:
        """Nats and tokens of a text; a text says why there are none."""
        try:
            before = self.prompt_tokens(prompt, thinking=thinking_of(text))
        except (Unusable, TemplateError) as error:
            return str(error)
        after = self.tokens(text)
        if not before or not after:
            return "the text has no token" if before else "the prompt has no token"
        ids = torch.tensor([before + after], device=self.device)
        with torch.inference_mode():
            logits = self.model(ids).logits[0, len(before) - 1 : -1].double()
        own = ids[0, len(before) :]
        nats = torch.nn.functional.cross_entropy(logits, own, reduction="sum")
        return float(nats), len(own)

    def prompt_tokens(self, prompt: list[dict[str, Any]], *, thinking: bool) -> list[int]:
        """What training has before an answer; Unusable: it would not have this prompt."""

        def rendered(messages: list[dict[str, Any]]) -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
                )
            )

        turns = trained_prompt(prompt)
        masked = marked(turns)
        with_marks = None if masked is None else rendered(masked)
        pieces = cut(turns, rendered(turns), with_marks)
        return [token for piece in pieces for token in self.tokens(piece)]

    def tokens(self, text: str) -> list[int]:
        """The tokens of a piece of the conversation."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@lru_cache(maxsize=1)
def _model(path: str) -> Model:
    return Model(path)


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """{"losses": [[nats, tokens] or why not, ...]}, or {"error": why}."""
    try:
        model = _model(question["model"])
    except (OSError, ValueError, KeyError) as error:  # no usable model in the folder
        return {"error": str(error).splitlines()[0]}
    return {"losses": [model.loss(row["prompt"], row["text"]) for row in question["passages"]]}


if __name__ == "__main__":
    raise SystemExit(answer_questions(answer))
