"""The tokens of texts after their prompts, cut as training cuts them, by a server's `/tokenize`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from palmswift.eval.asking.client import Client
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.reply import Failure
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.loop import run_interruptible
from palmswift.eval.measures.pieces import (
    Passage,
    Unusable,
    cut,
    marked,
    thinking_of,
    trained_prompt,
)

_NO_SUCH_ROUTE = frozenset({404, 405, 501})


class Tokens(NamedTuple):
    """A conversation as a model is trained on it."""

    prompt: list[int]
    text: list[int]


class NoTokenizer(Exception):
    """The server does not tell how it makes tokens; says what it answered."""

    def __init__(self, message: str, owner: str | None = None) -> None:
        self.owner = owner
        """Whose models the server says it has: ms-swift's says `swift`, vLLM's `vllm`."""
        super().__init__(message)


def tokens_of(
    endpoint: Endpoint,
    model: str,
    passages: Sequence[Passage],
    policy: RetryPolicy,
    *,
    concurrency: int = 8,
) -> dict[str, Tokens | Unusable]:
    """The tokens of each passage by its id, or why it has none; NoTokenizer where none has."""
    return run_interruptible(_tokens_of(endpoint, model, passages, policy, concurrency))


async def _tokens_of(
    endpoint: Endpoint,
    model: str,
    passages: Sequence[Passage],
    policy: RetryPolicy,
    concurrency: int,
) -> dict[str, Tokens | Unusable]:
    async with Client(endpoint, policy, concurrency=concurrency) as client:
        tokenizer = _Tokenizer(client, model)
        try:
            await tokenizer.tokens("a")  # before hundreds are asked
        except (NoTokenizer, Unusable) as error:
            cards = await client.model_cards()
            owner = next((card.get("owned_by") for card in cards if card["id"] == model), None)
            raise NoTokenizer(str(error), owner) from error

        async def one(passage: Passage) -> Tokens | Unusable:
            try:
                return await _cut(tokenizer, passage)
            except Unusable as error:
                return error

        found = await asyncio.gather(*map(one, passages))
    return {passage.id: tokens for passage, tokens in zip(passages, found, strict=True)}


async def _cut(tokenizer: _Tokenizer, passage: Passage) -> Tokens:
    prompt = trained_prompt(passage.prompt)
    thinking = thinking_of(passage.text)
    rendered, ids = await tokenizer.rendered(prompt, thinking)
    masked = marked(prompt)
    with_marks = None if masked is None else (await tokenizer.rendered(masked, thinking))[0]
    pieces = cut(prompt, rendered, with_marks)
    if pieces == [rendered]:
        before = ids
    else:
        # What is put together again must be what the template wrote.
        if await tokenizer.tokens(rendered) != ids:
            raise Unusable("the server's /detokenize does not give the prompt back")
        before = [token for piece in pieces for token in await tokenizer.tokens(piece)]
    after = await tokenizer.tokens(passage.text)
    if not before or not after:
        raise Unusable("the text has no token" if before else "the prompt has no token")
    return Tokens(before, after)


class _Tokenizer:
    """A server's tokenizer and chat template (vLLM's routes `/tokenize` and `/detokenize`)."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._kwargs: dict[str, Any] = client.endpoint.extra.get("chat_template_kwargs") or {}

    async def tokens(self, text: str) -> list[int]:
        """The tokens of a text by itself, without any that begin a document."""
        return await self._ids({"prompt": text, "add_special_tokens": False})

    async def rendered(
        self, messages: Sequence[Mapping[str, Any]], thinking: bool
    ) -> tuple[str, list[int]]:
        """The prompt as the chat template writes it, and its tokens, all made at once."""
        ids = await self._ids(
            {
                "messages": list(messages),
                "add_generation_prompt": True,
                "add_special_tokens": False,
                "chat_template_kwargs": {**self._kwargs, "enable_thinking": thinking},
            }
        )
        body = {"model": self._model, "tokens": ids}
        reply = _usable(await self._client.ask("/detokenize", body), "/detokenize")
        text = reply.get("prompt")
        if not isinstance(text, str):
            raise Unusable("the server's /detokenize gives no text")
        return text, ids

    async def _ids(self, body: Mapping[str, Any]) -> list[int]:
        body = {"model": self._model, **body}
        reply = _usable(await self._client.ask("/tokenize", body), "/tokenize")
        ids = reply.get("tokens")
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise NoTokenizer("the server's /tokenize gives no token ids")
        return ids


def _usable(reply: Any, route: str) -> dict[str, Any]:
    if isinstance(reply, Failure):
        if reply.status in _NO_SUCH_ROUTE or reply.kind == "garbage":
            shown = reply.message if reply.status is None else f"HTTP {reply.status}"
            raise NoTokenizer(f"the server has no {route} ({shown})")
        raise Unusable(f"{route}: {reply.message}")
    if not isinstance(reply, dict):
        raise NoTokenizer(f"the server's {route} does not answer with an object")
    return reply
