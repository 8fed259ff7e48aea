"""Whether a server really answers: one short chat completion, and a refusal without the key."""

from __future__ import annotations

from typing import Literal, NamedTuple

import requests

_CONNECT_SECONDS = 3.05
_ANSWER_SECONDS = 60.0


class Answer(NamedTuple):
    """What came of one request: `ok`, `refused` by the server (4xx, 5xx, not a completion), or
    `silent` (no connection, no reply in time)."""

    kind: Literal["ok", "refused", "silent"]
    detail: str = ""


def ask(base_url: str, model: str, key: str | None, timeout: float = _ANSWER_SECONDS) -> Answer:
    """Ask `model` for one token of chat at `base_url` (with `/v1`)."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 1,
        "temperature": 0,
    }
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy for the web is none for this machine
            reply = session.post(
                f"{base_url}/chat/completions",
                json=body,
                headers=headers,
                timeout=(_CONNECT_SECONDS, timeout),
            )
    except requests.RequestException as error:
        return Answer("silent", f"{type(error).__name__}: {error}"[:300])
    if reply.status_code != 200:
        return Answer("refused", f"HTTP {reply.status_code}: {reply.text[:300]}")
    return _completion(reply)


def _completion(reply: requests.Response) -> Answer:
    try:
        document = reply.json()
        choice = document["choices"][0]["message"]
    except (ValueError, LookupError, TypeError):
        return Answer("refused", f"the reply is not a chat completion: {reply.text[:300]}")
    return Answer("ok") if isinstance(choice, dict) else Answer("refused", f"{document}"[:300])


def is_healthy(base_url: str, timeout: float = 3.0) -> bool:
    """Whether the server answers on `/health`, which asks for no key and generates nothing."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            reply = session.get(f"{base_url.removesuffix('/v1')}/health", timeout=timeout)
    except requests.RequestException:
        return False
    return reply.status_code == 200
