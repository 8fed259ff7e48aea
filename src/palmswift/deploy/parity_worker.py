"""The child that loads a trained model and says what it answers: `... parity_worker SPEC ANSWER`.

Prompts become tokens by the training's own template in training mode: all that stands before the
answer's first token that is trained on. The weights are loaded as `swift infer` loads them.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from swift.arguments import InferArguments
from swift.infer_engine import InferRequest
from swift.pipelines.utils import prepare_model_template
from swift.template.base import Template

from palmswift.data.real_template import RealTemplate, template_arguments
from palmswift.deploy.parity_prompts import Prompt
from palmswift.deploy.parity_truth import TruthSpec
from palmswift.files import write_text

_ANSWER = "好"
"""Stands for the answer while a prompt's tokens are made; its own tokens are cut off again."""

_DEFAULT_SYSTEM = "You are a helpful assistant."


def prompt_ids(template: RealTemplate, prompt: Prompt) -> list[int]:
    """The tokens before the last stretch that is trained on."""
    answer = {"role": "assistant", "content": _ANSWER}
    row: dict[str, Any] = {"messages": [*prompt.messages, answer]}
    (encoded,) = template.sequences(row)
    start = len(encoded.labels)
    while start and encoded.labels[start - 1] == -100:  # what follows the answer
        start -= 1
    while start and encoded.labels[start - 1] != -100:
        start -= 1
    return encoded.input_ids[:start]


def variants(template: Template, tokenizer: Any, prompt: Prompt) -> dict[str, list[int]]:
    """What the prompt becomes by the usual mistakes; those that a template refuses are left out."""
    without = [message for message in prompt.messages if message["role"] != "system"]
    systems = {"": prompt.messages}
    if len(without) < len(prompt.messages):
        systems["no_system"] = without
    else:
        systems["other_system"] = [{"role": "system", "content": _DEFAULT_SYSTEM}, *without]
    made: dict[str, list[int]] = {}
    for system, messages in systems.items():
        for thinking in (True, False):
            name = "+".join(filter(None, ["thinking_on" if thinking else "thinking_off", system]))
            with contextlib.suppress(Exception):
                made[name] = _served(template, messages, thinking)
            with contextlib.suppress(Exception):
                made[f"chat_template+{name}"] = tokenizer.apply_chat_template(
                    messages,
                    add_generation_prompt=True,
                    enable_thinking=thinking,
                    return_dict=False,
                )
    return made


def _served(template: Template, messages: list[dict[str, str]], thinking: bool) -> list[int]:
    """The tokens that ms-swift's own server makes of the messages."""
    request = InferRequest([dict(message) for message in messages])
    request.chat_template_kwargs = {"enable_thinking": thinking}
    template.set_mode("transformers")
    encoded: dict[str, Any] = template.encode(request)
    ids: list[int] = encoded["input_ids"]
    return ids


def greedy(
    model: Any, ids: Sequence[int], stops: set[int], max_tokens: int, decode: Callable[..., str]
) -> dict[str, Any]:
    """The most likely continuation, token by token, as a document of `Answer`."""
    feed = torch.tensor([list(ids)], device=model.device)
    cache: Any = None
    chosen: list[int] = []
    logprobs, gaps = [], []
    while len(chosen) < max_tokens and not (chosen and chosen[-1] in stops):
        with torch.inference_mode():
            out = model(input_ids=feed, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        scores = torch.log_softmax(out.logits[0, -1].float(), dim=-1)
        (first, second), (token, _) = scores.topk(2)
        chosen.append(int(token))
        logprobs.append(float(first))
        gaps.append(float(first - second))
        feed = token.reshape(1, 1)
    finished = bool(chosen) and chosen[-1] in stops
    return {
        "text": decode(chosen[:-1] if finished else chosen, skip_special_tokens=True),
        "ids": chosen,
        "finished": finished,
        "logprobs": logprobs,
        "gaps": gaps,
    }


class Asked:
    """The trained model and the one that it was made of."""

    def __init__(self, spec: TruthSpec) -> None:
        adapters = [spec.adapter] if spec.adapter else []
        self.spec = spec
        arguments = InferArguments(**{**spec.model, "adapters": adapters, "load_args": False})
        self.model, self.template = prepare_model_template(arguments)
        self.model.eval()
        self.tokenizer = self.template.tokenizer
        self.stops = {int(self.template.template_meta.stop_token_id)}

    def answers(self, prompts: Sequence[list[int]]) -> Iterator[tuple[Any, Any]]:
        """For each prompt the trained model's answer and the base's, as documents of `Answer`."""
        tuned = [self._greedy(self.model, ids) for ids in prompts]
        if self.spec.adapter:
            with self.model.disable_adapter():
                base = [self._greedy(self.model, ids) for ids in prompts]
        else:
            del self.model  # before the other is loaded: there may not be room for both
            model, _ = prepare_model_template(
                InferArguments(**{**self.spec.model, "model": self.spec.base, "load_args": False})
            )
            base = [self._greedy(model.eval(), ids) for ids in prompts]
        yield from zip(tuned, base, strict=True)

    def _greedy(self, model: Any, ids: Sequence[int]) -> dict[str, Any]:
        return greedy(model, ids, self.stops, self.spec.max_tokens, self.tokenizer.decode)


def document(spec: TruthSpec) -> dict[str, Any]:
    """What `palmswift.deploy.parity_truth.Truth` is made of."""
    trained = RealTemplate(template_arguments(spec.template), spec.kind)
    asked = Asked(spec)
    ids = [prompt_ids(trained, prompt) for prompt in spec.prompts]
    wrong = [variants(asked.template, asked.tokenizer, prompt) for prompt in spec.prompts]
    expected = [
        {
            "prompt": prompt.model_dump(),
            "prompt_ids": tokens,
            "answer": tuned,
            "base": base,
            "variants": {name: other for name, other in mistaken.items() if other != tokens},
        }
        for prompt, tokens, mistaken, (tuned, base) in zip(
            spec.prompts, ids, wrong, asked.answers(ids), strict=True
        )
    ]
    folder = str(asked.tokenizer.name_or_path)
    return {"stop_ids": sorted(asked.stops), "tokenizer": folder, "expected": expected}


def main(argv: Sequence[str]) -> int:
    """Read the spec, write the answer."""
    spec, answer = map(Path, argv)
    told = TruthSpec.model_validate_json(spec.read_bytes())
    write_text(answer, json.dumps(document(told), ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
