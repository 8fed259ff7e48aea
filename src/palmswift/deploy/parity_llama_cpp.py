"""What llama.cpp's server saw of a prompt and what it said, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import requests

TELL_IDS: Mapping[str, bool] = {"return_tokens": True, "verbose": True}
"""By which it adds the answer's tokens to a chat completion."""

_SECONDS = (3.05, 60.0)


def is_of_it(document: Mapping[str, Any]) -> bool:
    """Whether a chat completion is llama.cpp's: no other server's has these timings."""
    timings = document.get("timings")
    return isinstance(timings, dict) and "predicted_per_token_ms" in timings


def prompt_ids(
    session: requests.Session, base_url: str, messages: Sequence[Mapping[str, str]]
) -> list[int] | None:
    """The tokens that a chat completion of the messages begins with; None: it does not say.

    Its chat completion renders and cuts by the same two functions (tools/server in llama.cpp).
    """
    root = base_url.removesuffix("/v1")
    rendered = _post(session, f"{root}/apply-template", {"messages": [*messages]})
    text = rendered.get("prompt")
    if not isinstance(text, str):
        return None
    body = {"content": text, "add_special": True, "parse_special": True}
    tokens = _post(session, f"{root}/tokenize", body).get("tokens")
    return [int(one) for one in tokens] if isinstance(tokens, list) else None


def answer(document: Mapping[str, Any]) -> tuple[list[int], list[float | None]] | None:
    """The answer's tokens with their log-probabilities; None: it does not tell the tokens.

    A character of several tokens has one log-probability in the reply, that of its last token: the
    others have none.
    """
    tokens = (document.get("__verbose") or {}).get("tokens")
    if not isinstance(tokens, list) or not tokens:
        return None
    told = iter((document["choices"][0].get("logprobs") or {}).get("content") or [])
    entry = next(told, None)
    logprobs: list[float | None] = []
    for token in tokens:
        if entry is not None and entry.get("id") == token:
            logprobs.append(float(entry["logprob"]))
            entry = next(told, None)
        else:
            logprobs.append(None)
    return [int(token) for token in tokens], logprobs


def _post(session: requests.Session, address: str, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        reply = session.post(address, json=body, timeout=_SECONDS)
        document = reply.json() if reply.status_code == 200 else {}
    except (requests.RequestException, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
