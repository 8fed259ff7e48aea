"""How likely a model finds given texts as its own answers, through its chat template.

The loss of a text is the sum over its tokens of -ln p(token | template, prompt, text so far), with
the tokens that training makes of it (`measures.pieces`); the mark that ends the turn is left out.

- `prompt_logprobs`, `echo`: the server's `/tokenize` makes the pieces into tokens, and these are
  sent to `/v1/completions`, which tells the log-probability of each (vLLM has both).
- `swift`: `swift deploy` with vLLM behind it takes the conversation itself, cuts it by the template
  of the training, and tells the same.
- `local`: the model itself, from a folder, in a process of its own.

Any other server is "unsupported", with what it answered; never a number of another cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from palmswift.errors import InputError
from palmswift.eval.asking.asking import Asker, find
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.engine import Question, Sampling, Target
from palmswift.eval.asking.journal import Prediction, read_journal
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.measures.model_child import ModelChild
from palmswift.eval.measures.pieces import Passage, Unusable, why_no_loss
from palmswift.eval.measures.server_tokens import NoTokenizer, Tokens, tokens_of

__all__ = ["Loss", "Losses", "Passage", "from_model", "through_endpoint"]

Way = Literal["prompt_logprobs", "echo", "swift", "local"]

_CHUNK = 16
_PROMPT, _WHOLE = 0, 1
"""The `repeat` that a passage's prompt, and the prompt with its text, are journalled under."""

_NO_THINKING = "<think>\n\n</think>\n\n"
"""What Qwen3's template puts before an answer without thinking."""

_SWIFT = "swift"
"""Whose models `swift deploy` says that it has."""


class Loss(BaseModel):
    """What one text costs a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    nats: float
    tokens: int
    bytes: int
    """Of the text in UTF-8; unlike tokens they are the same for every model."""

    @property
    def nats_per_token(self) -> float:
        """As a training's loss is given."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Compares models of different tokenizers."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(min(self.nats_per_token, 700.0))


class Losses(BaseModel):
    """What the texts cost one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    way: Way | None
    """Null: unsupported."""
    reason: str | None = None
    """Why it is unsupported."""
    losses: list[Loss] = []
    failed: dict[str, str] = {}
    """The passages without a loss, and why."""

    @property
    def total(self) -> Loss | None:
        """All texts as one."""
        if not self.losses:
            return None
        return Loss(
            id="all",
            nats=math.fsum(loss.nats for loss in self.losses),
            tokens=sum(loss.tokens for loss in self.losses),
            bytes=sum(loss.bytes for loss in self.losses),
        )


def through_endpoint(
    endpoint: Endpoint,
    passages: Sequence[Passage],
    journal: Path,
    policy: RetryPolicy,
    *,
    concurrency: int = 8,
    note: Callable[[str], None] = lambda text: None,
) -> Losses:
    """The losses of `passages` at an endpoint; replies are kept in `journal` and not asked twice.

    ChildError when the endpoint does not answer.
    """
    usable, failed = _with_text(passages)
    found = find(endpoint, policy)
    sampling = Sampling(max_tokens=1, temperature=0.0)
    why: list[str] = []
    ways: list[_Told] = []
    with Asker(journal, sampling, policy, concurrency, note=note) as asker:
        target = asker.admit(found)
        try:
            cuts = tokens_of(endpoint, target.model, usable, policy, concurrency=concurrency)
        except NoTokenizer as error:
            why.append(str(error))
            ways += [_Swift()] if usable and error.owner == _SWIFT else []
        else:
            failed |= {name: str(cut) for name, cut in cuts.items() if isinstance(cut, Unusable)}
            usable = [passage for passage in usable if passage.id not in failed]
            tokens = {name: cut for name, cut in cuts.items() if isinstance(cut, Tokens)}
            ways += [_PromptLogprobs(tokens), _Echo(tokens)] if usable else []
        for way in ways:
            # The shortest, since a text that is too long for the model says nothing of the server.
            first = min(usable, key=lambda passage: len(str(passage)))
            try:
                way.loss(first, _ask(asker, target, way.questions(first)))
            except Unusable as error:
                why.append(f"{way.name}: {error}")
                continue
            rows = _ask(asker, target, [q for passage in usable for q in way.questions(passage)])
            losses, lacking = _losses(way, usable, rows)
            failed |= lacking
            return Losses(label=endpoint.label, way=way.name, losses=losses, failed=failed)
    reason = "; ".join(why) or f"no text could be used: {next(iter(failed.values()))}"
    return Losses(label=endpoint.label, way=None, reason=reason, failed=failed)


def _losses(
    way: _Told, passages: Sequence[Passage], rows: Rows
) -> tuple[list[Loss], dict[str, str]]:
    """The losses, and why the other passages have none."""
    losses: list[Loss] = []
    failed: dict[str, str] = {}
    for passage in passages:
        try:
            losses.append(way.loss(passage, rows))
        except Unusable as error:
            failed[passage.id] = str(error)
    return losses, failed


def _with_text(passages: Sequence[Passage]) -> tuple[list[Passage], dict[str, str]]:
    """The passages whose text can have a loss, and why the others have none."""
    if not any(passage.text.strip() for passage in passages):
        raise InputError("there is no text whose loss could be taken")
    why = {passage.id: why_no_loss(passage.text) for passage in passages}
    failed = {name: reason for name, reason in why.items() if reason is not None}
    return [passage for passage in passages if passage.id not in failed], failed


Rows = Mapping[tuple[str, int], Prediction]


class _Told(Protocol):
    """A way in which a server tells what a text costs."""

    name: Way

    def questions(self, passage: Passage) -> list[Question]:
        """The requests of a passage."""

    def loss(self, passage: Passage, rows: Rows) -> Loss:
        """The loss of a passage from the replies; Unusable says what they lack."""


class _PromptLogprobs:
    """Tokens are sent as a bare prompt, and vLLM's `prompt_logprobs` tells of each."""

    name: Way = "prompt_logprobs"
    fields: Mapping[str, Any] = {"prompt_logprobs": 0}

    def __init__(self, tokens: Mapping[str, Tokens]) -> None:
        self._tokens = tokens

    def questions(self, passage: Passage) -> list[Question]:
        """The one request of a passage."""
        tokens = self._tokens[passage.id]
        body = {
            "prompt": [*tokens.prompt, *tokens.text],
            "max_tokens": 1,
            "temperature": 0.0,
            **self.fields,
        }
        return [Question(passage.id, _WHOLE, [], body=body, route="completion")]

    def loss(self, passage: Passage, rows: Rows) -> Loss:
        """The loss of a passage; Unusable says what the reply lacks."""
        tokens = self._tokens[passage.id]
        told = self._told(_answered(rows.get((passage.id, _WHOLE))), [*tokens.prompt, *tokens.text])
        return _loss(passage, told[len(tokens.prompt) :])

    def _told(self, row: Prediction, ids: list[int]) -> list[float | None]:
        told = _prompt_tokens(row)
        if [token.id for token in told[1:]] != list(map(str, ids[1:])) or len(told) != len(ids):
            raise Unusable("the server tells of other tokens than it was sent")
        return [token.logprob for token in told]


class _Echo(_PromptLogprobs):
    """The same, told by an echoed completion."""

    name: Way = "echo"
    fields: Mapping[str, Any] = {"echo": True, "logprobs": 1}

    def _told(self, row: Prediction, ids: list[int]) -> list[float | None]:
        of = row.logprobs if isinstance(row.logprobs, dict) else {}
        told = of.get("token_logprobs")
        if not isinstance(told, list):
            raise Unusable("the server's reply has no log-probabilities")
        if len(told) < len(ids):
            raise Unusable("the server does not echo the prompt")
        counted = (row.usage or {}).get("prompt_tokens", len(ids))
        if told[0] is not None or counted != len(ids):
            raise Unusable("the server echoes other tokens than it was sent")
        return [None if value is None else float(value) for value in told[: len(ids)]]


class _Swift:
    """`swift deploy` with vLLM: the text is an answer to go on with, in ms-swift's own cut."""

    name: Way = "swift"

    def questions(self, passage: Passage) -> list[Question]:
        """The two requests of a passage: its prompt, and its prompt with the text."""
        fields = {"prompt_logprobs": 0}
        prompt = list(map(dict, passage.prompt))
        whole = [*prompt, {"role": "assistant", "content": passage.text}]
        return [
            Question(passage.id, _PROMPT, prompt, fields),
            Question(passage.id, _WHOLE, whole, fields),
        ]

    def loss(self, passage: Passage, rows: Rows) -> Loss:
        """The loss of a passage from both replies; Unusable says what they lack."""
        prompt, whole = (
            _prompt_tokens(_answered(rows.get((passage.id, part)))) for part in (_PROMPT, _WHOLE)
        )
        if len(whole) <= len(prompt):
            raise Unusable("the text has no token of its own in the template")
        if [token.id for token in whole[: len(prompt)]] != [token.id for token in prompt]:
            raise Unusable("the prompt's tokens do not begin the conversation's")
        own = _without_thinking(whole[len(prompt) :], passage.text)
        return _loss(passage, [token.logprob for token in own])


def _without_thinking(tokens: Sequence[_Token], text: str) -> Sequence[_Token]:
    """The tokens without the empty thinking that the template puts before an answer, though the
    prompt did not end with it (thinking is on): it is the template's, not the text's."""
    seen = ""
    for position, token in enumerate(tokens):
        if seen == _NO_THINKING and not text.startswith(_NO_THINKING):
            return tokens[position:]
        if not _NO_THINKING.startswith(seen):
            break
        seen += token.text
    return tokens


class _Token(NamedTuple):
    """A token of a prompt, as vLLM tells of it."""

    id: str
    text: str
    """Empty where the server does not say."""
    logprob: float | None
    """None of the first."""


def _answered(row: Prediction | None) -> Prediction:
    if row is None:
        raise Unusable("not asked")
    if row.error is not None:
        raise Unusable(row.error.message)
    return row


def _prompt_tokens(row: Prediction) -> list[_Token]:
    """The prompt's tokens and their log-probabilities."""
    if not row.prompt_logprobs:
        raise Unusable("the server's reply has no prompt_logprobs")
    told: list[_Token] = []
    for position, entry in enumerate(row.prompt_logprobs):
        if entry is None and position == 0:
            told.append(_Token("", "", None))
        elif isinstance(entry, dict) and len(entry) == 1:
            [(token, of)] = entry.items()
            known = of if isinstance(of, dict) else {"logprob": of}
            text = known.get("decoded_token") or ""
            told.append(_Token(token, text, float(known["logprob"])))
        else:
            raise Unusable("the server tells of other tokens than the prompt's")
    return told


def _loss(passage: Passage, logprobs: Sequence[float | None]) -> Loss:
    values = [value for value in logprobs if value is not None]
    if not values or len(values) != len(logprobs):
        raise Unusable("a token of the text has no log-probability")
    size = len(passage.text.encode())
    return Loss(id=passage.id, nats=-math.fsum(values), tokens=len(values), bytes=size)


def _ask(asker: Asker, target: Target, questions: Sequence[Question]) -> Rows:
    asker.ask(target, questions)
    wanted = asker.keys(target, questions)
    return {(row.case, row.repeat): row for row in read_journal(asker.path) if row.key in wanted}


def from_model(model: Path, passages: Sequence[Passage], label: str = "local") -> Losses:
    """The losses of `passages` by the model in a folder. ChildError: it could not be run."""
    usable, failed = _with_text(passages)
    losses: list[Loss] = []
    with ModelChild("palmswift.eval.measures.perplexity_worker", "perplexity", model) as child:
        for start in range(0, len(usable), _CHUNK):
            chunk = usable[start : start + _CHUNK]
            rows = [{"prompt": list(map(dict, p.prompt)), "text": p.text} for p in chunk]
            reply = child.measure({"passages": rows})
            for passage, found in zip(chunk, reply["losses"], strict=True):
                if isinstance(found, str):
                    failed[passage.id] = found
                else:
                    size = len(passage.text.encode())
                    losses.append(Loss(id=passage.id, nats=found[0], tokens=found[1], bytes=size))
    return Losses(label=label, way="local", losses=losses, failed=failed)
