"""What a served model is known by, so that answers of other weights are never taken for its own.

The name and the address of a model stay the same when it is trained anew and served again. So eight
short prompts are asked greedily, one after the other, and the texts and log-probabilities that come
back are compared with those from before, within the noise that two askings of one model show.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.errors import ChildError
from palmswift.eval.asking.client import Client
from palmswift.eval.asking.conversation import canonical_hash
from palmswift.eval.asking.reply import Failure, Reply
from palmswift.files import write_text

PROMPTS = (
    *("你好", "请用一句话介绍你自己。", "几点开门？", "1+1=?"),
    *("Hello!", "Name a colour.", "Translate into French: good morning", "def add(a, b):"),
)
"""Asked greedily; what matters is only that the same weights answer them alike."""

PURPOSE = ("X-Request-Purpose", "fingerprint")
"""The header by which a probe can be told from a question."""

_TOKENS = 8
_FLOOR = 0.002
"""Nats a token by which the log-probabilities of one model may differ without noise to show for it:
one bfloat16 kernel instead of another gives less, a training of a few steps gives more."""
_UNSTABLE = 0.2
"""Nats a token: a model that differs more from itself cannot be told from another."""
_NOW = 2.0
"""A model that was `created` within so many seconds of being asked was not: the server tells the
time of the request, as vLLM and ms-swift do."""

Level = Literal["weights", "texts", "none"]


class Probe(BaseModel):
    """What one prompt was answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    tokens: list[str] = []
    logprobs: list[float] = []
    """Of each token, where the server tells them."""


class Fingerprint(BaseModel):
    """One served model, as it showed itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """16 hex digits; that of the first asking is kept as long as later ones are the same."""
    level: Level
    """`weights`: texts and log-probabilities. `texts`: texts alone, so that a small change may go
    unseen. `none`: it cannot be recognised."""
    card: dict[str, Any] = {}
    """`root`, `parent`, `max_model_len` and `created` of its entry in `/v1/models`."""
    probes: list[Probe] = []
    noise: float = 0.0
    """Mean difference of the log-probabilities of two askings, in nats a token."""
    why: str = ""
    """For `none` and `texts`: the reason."""


async def take(client: Client, model: str, *, quickly: bool = False) -> Fingerprint:
    """The fingerprint of the model that answers now; ChildError when nothing does.

    `quickly` asks once only, so that nothing is learned about the noise.
    """
    asked_at = time.time()
    before = _card(await client.model_cards(), model)
    first = await _ask(client, model)
    second = await _ask(client, model) if isinstance(first, list) and not quickly else first
    after = _card(await client.model_cards(), model)
    card = {name: value for name, value in before.items() if after.get(name) == value}
    created = card.get("created")
    now = client.server_time or asked_at
    if isinstance(created, (int, float)) and abs(created - now) <= _NOW:
        del card["created"]
    if isinstance(first, Failure) or isinstance(second, Failure):
        failure = first if isinstance(first, Failure) else second
        assert isinstance(failure, Failure)
        return _unknown(card, f"a probe was not answered: {failure.message}")
    return _of(card, first, second)


def same(known: Fingerprint, now: Fingerprint) -> bool:
    """Whether both are of one model, as far as can be told."""
    common = known.card.keys() & now.card.keys()
    return same_weights(known, now) and all(known.card[name] == now.card[name] for name in common)


def same_weights(known: Fingerprint, now: Fingerprint) -> bool:
    """Whether both answer alike, whatever the servers say of their models."""
    if "none" in (known.level, now.level) or known.level != now.level:
        return False
    if known.level == "texts":
        by_text = zip(known.probes, now.probes, strict=True)
        return all(a.text == b.text for a, b in by_text if a.text and b.text)
    noise = max(known.noise, now.noise)
    diverged, distance = _distance(known.probes, now.probes)
    return distance <= max(_FLOOR, 4 * noise) and (not diverged or noise > 0)


class KnownModels:
    """The fingerprints of the models whose answers a folder holds, in a file beside them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._models: dict[str, Fingerprint] = {}
        # Without a file that can be read every model is new, and older answers are set aside.
        with contextlib.suppress(FileNotFoundError, ValidationError):
            self._models = _File.model_validate_json(path.read_bytes()).models

    def get(self, identity: str | None) -> Fingerprint | None:
        """The model that is known by this id."""
        return self._models.get(identity) if identity is not None else None

    def recognised(self, taken: Fingerprint) -> Fingerprint:
        """The known model that this one is, else itself, which is then known."""
        if taken.level == "none":
            return taken
        known = next((m for m in self._models.values() if same(m, taken)), None)
        if known is not None:
            return known
        self._models[taken.id] = taken
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, _File(models=self._models).model_dump_json(indent=1) + "\n")
        return taken


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, Fingerprint]


def _card(cards: Sequence[dict[str, Any]], model: str) -> dict[str, Any]:
    """What the model's entry says of the model itself."""
    found = [card for card in cards if card["id"] == model] or list(cards[:1])
    names = ("root", "parent", "max_model_len", "created")
    return {name: found[0][name] for name in names if found and found[0].get(name) is not None}


async def _ask(client: Client, model: str) -> list[Probe] | Failure:
    """All prompts in turn; the first failure, if any. Log-probabilities that a server refuses are
    left out."""
    probes: list[Probe] = []
    with_logprobs = True
    for prompt in PROMPTS:
        outcome = await _one(client, model, prompt, with_logprobs)
        if isinstance(outcome, Failure) and outcome.status in (400, 422, 501) and with_logprobs:
            with_logprobs = False
            outcome = await _one(client, model, prompt, with_logprobs)
        if isinstance(outcome, Failure):
            return outcome
        probes.append(_probe(outcome))
    return probes


async def _one(client: Client, model: str, prompt: str, logprobs: bool) -> Reply | Failure:
    body: dict[str, Any] = {
        **client.endpoint.extra,
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": _TOKENS,
        "temperature": 0,
    }
    if logprobs:
        body["logprobs"] = True
    return await client.complete(body, headers=dict([PURPOSE]))


def _probe(reply: Reply) -> Probe:
    text = (reply.reasoning or "") + (reply.content or "")
    rows = reply.logprobs.get("content") if isinstance(reply.logprobs, dict) else None
    tokens: list[str] = []
    logprobs: list[float] = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or not isinstance(row.get("logprob"), (int, float)):
            return Probe(text=text)
        tokens.append(str(row.get("token")))
        logprobs.append(float(row["logprob"]))
    return Probe(text=text, tokens=tokens, logprobs=logprobs)


def _of(card: dict[str, Any], first: list[Probe], second: list[Probe]) -> Fingerprint:
    """What two askings of one model say together."""
    if all(probe.logprobs for probe in (*first, *second)):
        diverged, noise = _distance(first, second)
        if noise > _UNSTABLE:
            return _unknown(card, f"greedy answers differ by {noise:.2f} nats a token in a row")
        noise = max(noise, _FLOOR / 4) if diverged else noise
        seen: list[Any] = [
            [probe.tokens, [round(value, 2) for value in probe.logprobs]] for probe in first
        ]
        identity = canonical_hash([card, seen])[:16]
        return Fingerprint(id=identity, level="weights", card=card, probes=first, noise=noise)
    stable = [a.text if a.text == b.text else "" for a, b in zip(first, second, strict=True)]
    if sum(bool(text) for text in stable) < len(PROMPTS) // 2:
        return _unknown(card, "greedy answers differ from one asking to the next, or are empty")
    return Fingerprint(
        id=canonical_hash([card, stable])[:16],
        level="texts",
        card=card,
        probes=[Probe(text=text) for text in stable],
        why="the server tells no log-probabilities",
    )


def _unknown(card: dict[str, Any], why: str) -> Fingerprint:
    return Fingerprint(id="", level="none", card=card, why=why)


def _distance(first: Sequence[Probe], second: Sequence[Probe]) -> tuple[bool, float]:
    """Whether any texts part, and the mean difference of log-probabilities up to where they do.

    Where greedy texts of one model part, two tokens were as good as tied, so that their
    log-probabilities are nearly the same: that token counts too.
    """
    deltas = [delta for a, b in zip(first, second, strict=True) for delta in _deltas(a, b)]
    diverged = any(a.tokens != b.tokens for a, b in zip(first, second, strict=True))
    return diverged, sum(deltas) / len(deltas) if deltas else 0.0


def _deltas(first: Probe, second: Probe) -> Iterator[float]:
    both = zip(first.tokens, second.tokens, first.logprobs, second.logprobs, strict=False)
    for token, other, logprob, other_logprob in both:
        yield abs(logprob - other_logprob)
        if token != other:
            return


class ModelChanged(ChildError):
    """The endpoint's model is another one than when the asking began."""
