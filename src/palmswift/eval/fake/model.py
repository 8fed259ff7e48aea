"""A language model whose every probability is known, and a queue whose capacity is known."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SPECIAL = re.compile(r"(<\|im_start\|>|<\|im_end\|>)")


class Unigram:
    """Characters come independently of each other, each with a fixed probability.

    A token is a character, or one of ChatML's two marks; what the text's log-probability is can be
    computed by hand: the sum of `logprob` over its `tokens`.
    """

    def __init__(self, probabilities: Mapping[str, float], unknown: float = 1e-6) -> None:
        """`unknown` is the probability of each token that is not among `probabilities`."""
        self.probabilities = dict(probabilities)
        self.unknown = unknown

    @classmethod
    def of_text(cls, text: str, unknown: float = 1e-6) -> Unigram:
        """The model in which each character is as probable as it is frequent in `text`."""
        return cls({c: text.count(c) / len(text) for c in set(text)}, unknown)

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text."""
        found: list[str] = []
        for part in _SPECIAL.split(text):
            found += [part] if _SPECIAL.fullmatch(part) else list(part)
        return found

    def logprob(self, token: str) -> float:
        """The natural logarithm of a token's probability."""
        return math.log(self.probabilities.get(token, self.unknown))

    def token_id(self, token: str) -> int:
        """A number for a token: its code point, and two beyond Unicode for the marks."""
        if len(token) == 1:
            return ord(token)
        return 0x110000 + (token == "<|im_end|>")

    def render(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The conversation as ChatML."""
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        if continue_final_message:
            return text.removesuffix("<|im_end|>\n")
        return text + "<|im_start|>assistant\n" * add_generation_prompt

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
