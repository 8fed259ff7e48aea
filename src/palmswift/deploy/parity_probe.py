"""What a server sees and says for the prompts that a trained model was asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests
from pydantic import BaseModel, ConfigDict

from palmswift.deploy import parity_llama_cpp
from palmswift.deploy.parity_prompts import Prompt
from palmswift.errors import ChildError

_CONNECT_SECONDS, _ANSWER_SECONDS = 3.05, 300.0

_TELL_IDS = {"return_details": True, "return_token_ids": True}
"""By which ms-swift (swift/infer_engine/protocol.py) and vLLM add the tokens to a reply."""

NEUTRAL: Mapping[str, float] = {
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Written out, these override what a server takes from the model's generation_config.json."""

_EMPTY_THINK = re.compile(r"^<think>\s*</think>\s*")


class Said(BaseModel):
    """A server's answer to one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str = ""
    """What was refused, with its status; the rest is then empty."""
    prompt_ids: list[int] | None = None
    prompt_tokens: int | None = None
    """Their number, which servers tell that do not tell the tokens."""
    text: str = ""
    ids: list[int] | None = None
    logprobs: list[float | None] | None = None
    """Of each token; None for one that the server does not tell it of."""
    finish_reason: str | None = None


class Observed(BaseModel):
    """One prompt asked up to three times: twice with nothing but temperature 0, once all written
    out. `again` and `neutral` are `plain` where there was no doubt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plain: Said
    again: Said
    neutral: Said


class Probe:
    """Asks one server one request at a time, so that batching cannot change an answer."""

    def __init__(self, base_url: str, model: str | None, key: str | None) -> None:
        self.base_url = base_url
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy for the web is none for this machine
        if key is not None:
            self._session.headers["Authorization"] = f"Bearer {key}"
        self.model = model or self._only_model()
        self._tell: dict[str, bool] = {**_TELL_IDS}

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def _only_model(self) -> str:
        """The first model that the server names; `ChildError` when it does not answer."""
        try:
            reply = self._session.get(
                f"{self.base_url}/models", timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS)
            )
            return str(reply.json()["data"][0]["id"])
        except (requests.RequestException, ValueError, LookupError, TypeError) as error:
            raise ChildError(
                f"{self.base_url} does not say which models it has: {error}"[:400],
                remedy="is the server up? `python deploy/status.py`; --model NAME names one",
            ) from error

    def observe(
        self, prompt: Prompt, max_tokens: int, doubted: Callable[[Said], bool] = lambda said: True
    ) -> Observed:
        """The answers, one alone unless it is `doubted`; `ChildError` when the server is gone."""
        body = {
            "model": self.model,
            "messages": prompt.messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": True,
        }
        plain = self._ask(body)
        if not doubted(plain):
            return Observed(plain=plain, again=plain, neutral=plain)
        again = self._ask(body)
        return Observed(plain=plain, again=again, neutral=self._ask({**body, **NEUTRAL}))

    def _ask(self, body: dict[str, Any]) -> Said:
        try:
            reply = self._session.post(
                f"{self.base_url}/chat/completions",
                json={**body, **self._tell},
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
            )
        except requests.RequestException as error:
            raise ChildError(
                f"{self.base_url} went away: {type(error).__name__}",
                remedy="python deploy/logs.py shows what the server has written",
            ) from error
        if reply.status_code != 200:
            return Said(error=f"HTTP {reply.status_code}: {reply.text[:300]}")
        try:
            document = reply.json()
            found = said(document)
        except (ValueError, LookupError, TypeError, AttributeError):
            return Said(error=f"the reply is not a chat completion: {reply.text[:300]}")
        if not parity_llama_cpp.is_of_it(document):
            return found
        if not parity_llama_cpp.TELL_IDS.items() <= self._tell.items():
            self._tell = {**parity_llama_cpp.TELL_IDS}
            return self._ask(body)
        seen = parity_llama_cpp.prompt_ids(self._session, self.base_url, body["messages"])
        return found.model_copy(update={"prompt_ids": seen})


def said(document: Mapping[str, Any]) -> Said:
    """What a chat completion's document holds; LookupError or TypeError when it is none."""
    choice = document["choices"][0]
    message = choice["message"]
    content = (choice.get("logprobs") or {}).get("content") or []
    ids, logprobs = choice.get("token_ids"), _logprobs(content)
    if told := parity_llama_cpp.answer(document):
        ids, logprobs = told
    return Said(
        prompt_ids=document.get("prompt_token_ids"),
        prompt_tokens=(document.get("usage") or {}).get("prompt_tokens"),
        text=_EMPTY_THINK.sub("", _thinking(message) + (message.get("content") or "")),
        ids=ids,
        logprobs=logprobs,
        finish_reason=choice.get("finish_reason"),
    )


def _thinking(message: Mapping[str, Any]) -> str:
    """Thinking that the server has taken out of the answer, put back as the model wrote it."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return f"<think>\n{reasoning}\n</think>\n\n" if reasoning else ""


def _logprobs(content: Sequence[Mapping[str, Any]]) -> list[float | None] | None:
    found = [item.get("logprob") for item in content]
    return [float(one) for one in found if one is not None] if found else None
