"""A language model whose every probability is known, and a queue whose capacity is known."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SPECIALS = ("<|im_start|>", "<|im_end|>")
_BEYOND_UNICODE = 0x110000
_NO_THINKING = "<think>\n\n</think>\n\n"


class Unigram:
    """Characters come independently of each other, each with a fixed probability.

    A token is a character, one of ChatML's two marks, or one of `merges`, texts that are one token
    wherever they stand; what the text's log-probability is can be computed by hand: the sum of
    `logprob` over its `tokens`. The template is ChatML; with `hybrid`, as Qwen3's it writes a block
    of empty thinking before an answer unless `enable_thinking` is true or left out.
    """

    def __init__(
        self,
        probabilities: Mapping[str, float],
        unknown: float = 1e-6,
        *,
        merges: Sequence[str] = (),
        hybrid: bool = False,
    ) -> None:
        """`unknown` is the probability of each token that is not among `probabilities`."""
        self.probabilities = dict(probabilities)
        self.unknown = unknown
        self.hybrid = hybrid
        self._long = (*_SPECIALS, *merges)
        self._cut = re.compile("|".join([*map(re.escape, self._long), "."]), re.DOTALL)

    @classmethod
    def of_text(cls, text: str, unknown: float = 1e-6) -> Unigram:
        """The model in which each character is as probable as it is frequent in `text`."""
        return cls({c: text.count(c) / len(text) for c in set(text)}, unknown)

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text."""
        return self._cut.findall(text)

    def logprob(self, token: str) -> float:
        """The natural logarithm of a token's probability."""
        return math.log(self.probabilities.get(token, self.unknown))

    def token_id(self, token: str) -> int:
        """A number for a token: its code point, or one beyond Unicode."""
        return ord(token) if len(token) == 1 else _BEYOND_UNICODE + self._long.index(token)

    def token_of(self, number: int) -> str:
        """The token of a number."""
        if number < _BEYOND_UNICODE:
            return chr(number)
        return self._long[number - _BEYOND_UNICODE]

    def render(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        enable_thinking: bool = True,
    ) -> str:
        """The conversation as ChatML."""
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        if continue_final_message:
            return text.removesuffix("<|im_end|>\n")
        if not add_generation_prompt:
            return text
        nothing = _NO_THINKING if self.hybrid and not enable_thinking else ""
        return f"{text}<|im_start|>assistant\n{nothing}"

    def prompt(self, body: Mapping[str, Any], *, goes_on: bool = False) -> list[str]:
        """The tokens that a request gives the model. With `goes_on` an answer at the end is not
        over, and is made into tokens by itself, as ms-swift's server has it."""
        if "messages" not in body:
            prompt = body.get("prompt", "")
            if isinstance(prompt, list):
                return [self.token_of(number) for number in prompt]
            return self.tokens(str(prompt))
        messages = body["messages"]
        thinking = (body.get("chat_template_kwargs") or {}).get("enable_thinking", True)
        if goes_on and messages[-1]["role"] == "assistant":
            before = self.render(messages[:-1], enable_thinking=thinking)
            return [*self.tokens(before), *self.tokens(messages[-1]["content"])]
        return self.tokens(
            self.render(
                messages,
                add_generation_prompt=body.get("add_generation_prompt", True),
                continue_final_message=body.get("continue_final_message", False),
                enable_thinking=thinking,
            )
        )

    def prompt_logprobs(self, tokens: Sequence[str]) -> list[dict[str, dict[str, Any]] | None]:
        """As vLLM tells them: nothing for the first token, then a map from token id."""
        told: list[dict[str, dict[str, Any]] | None] = [None]
        for token in tokens[1:]:
            told.append({str(self.token_id(token)): {**self._entry(token), "rank": 1}})
        return told

    def _entry(self, token: str) -> dict[str, Any]:
        return {"logprob": self.logprob(token), "decoded_token": token}

    def completion_logprobs(self, tokens: Sequence[str], *, echoed: bool) -> dict[str, Any]:
        """As `/v1/completions` tells them; the first token of an echoed prompt has none."""
        told: list[float | None] = [self.logprob(token) for token in tokens]
        if echoed and told:
            told[0] = None
        offsets = [0]
        for token in tokens[:-1]:
            offsets.append(offsets[-1] + len(token))
        tops = [None if p is None else {t: p} for t, p in zip(tokens, told, strict=True)]
        return {
            "tokens": list(tokens),
            "token_logprobs": told,
            "top_logprobs": tops,
            "text_offset": offsets[: len(tokens)],
        }

    def chat_logprobs(self, tokens: Sequence[str]) -> dict[str, Any]:
        """As `/v1/chat/completions` tells them for the reply's own tokens."""
        rows = [
            {"token": t, "logprob": self.logprob(t), "bytes": list(t.encode()), "top_logprobs": []}
            for t in tokens
        ]
        return {"content": rows}


class Capacity:
    """At most `workers` requests are served at once, each for an exponentially distributed time.

    With Poisson arrivals this is the queue M/M/k, whose capacity is `workers / service` requests a
    second; `service` is the mean in seconds. `exponential=False` makes every service equally long.
    """

    def __init__(
        self, workers: int, service: float, *, seed: int = 0, exponential: bool = True
    ) -> None:
        self.workers = workers
        self.service = service
        self.exponential = exponential
        self._draw = random.Random(seed)
        self._free: asyncio.Semaphore | None = None

    @property
    def requests_per_second(self) -> float:
        """What it can serve at most."""
        return self.workers / self.service

    async def serve(self) -> None:
        """Wait for a worker, and for as long as it takes."""
        if self._free is None:
            self._free = asyncio.Semaphore(self.workers)
        rate = 1 / self.service
        seconds = self._draw.expovariate(rate) if self.exponential else self.service
        async with self._free:
            await asyncio.sleep(seconds)
