"""How likely a model finds given texts as its own answers, through its chat template.

The loss of a text is the sum over its tokens of -ln p(token | template, prompt, text so far); the
mark that ends the turn is left out. Three ways lead there, tried in this order:

- `prompt_logprobs` (vLLM): the conversation is sent with the text as an answer to be continued;
  what the prompt alone is, a second request tells, and its tokens must begin the first's.
- `echo`: `/v1/completions` gives the rendered conversation back with its log-probabilities. The
  rendering is ChatML, and the server's own count of the prompt's tokens must agree with it.
- `local`: the model itself, from a folder, in a process of its own.

A server with neither of the first two is "unsupported", with what it answered; never a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from palmswift.errors import ChildError, InputError
from palmswift.eval.asking.asking import Asker, find
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.engine import Question, Sampling, Target
from palmswift.eval.asking.journal import Prediction, read_journal
from palmswift.eval.asking.retry import RetryPolicy
from palmswift.eval.json_child import ChildGone, JsonChild

Way = Literal["prompt_logprobs", "echo", "local"]

_TIMEOUT = 3600.0
_CHUNK = 16
_PROMPT, _WHOLE = 0, 1
"""The `repeat` that a passage's prompt, and the prompt with its text, are journalled under."""

_NO_THINKING = "<think>\n\n</think>\n\n"
"""What Qwen3's template puts before an answer when thinking is off."""


class Passage(NamedTuple):
    """A text as the answer to a prompt."""

    id: str
    prompt: Sequence[Mapping[str, Any]]
    """Messages; the last is the user's."""
    text: str

    def messages(self) -> list[dict[str, Any]]:
        """The prompt and the text as the answer to it."""
        return [*map(dict, self.prompt), {"role": "assistant", "content": self.text}]


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


class Unusable(ValueError):
    """Why a reply gives no loss."""


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
    usable = [passage for passage in passages if passage.text.strip()]
    if not usable:
        raise InputError("there is no text whose loss could be taken")
    found = find(endpoint, policy)
    why: list[str] = []
    sampling = Sampling(max_tokens=1, temperature=0.0)
    with Asker(journal, sampling, policy, concurrency, note=note) as asker:
        target = asker.admit(found)
        for way in (_prompt_logprobs, _echo):
            name, questions_of, loss_of = way(endpoint, asker, target, usable[0], why)
            if questions_of is None:
                continue
            questions = [question for passage in usable for question in questions_of(passage)]
            asker.ask(target, questions)
            rows = _rows(journal, asker, target, questions)
            losses, failed = [], {}
            for passage in usable:
                try:
                    losses.append(loss_of(passage, rows))
                except Unusable as error:
                    failed[passage.id] = str(error)
            return Losses(label=endpoint.label, way=name, losses=losses, failed=failed)
    return Losses(label=endpoint.label, way=None, reason="; ".join(why))


QuestionsOf = Callable[[Passage], list[Question]]
Rows = Mapping[tuple[str, int], Prediction]
LossOf = Callable[[Passage, Rows], Loss]
Trial = tuple[Way, QuestionsOf | None, LossOf]


def _prompt_logprobs(
    endpoint: Endpoint, asker: Asker, target: Target, first: Passage, why: list[str]
) -> Trial:
    """vLLM's way, if the server takes it: tried with the first passage."""
    rows = _ask(asker, target, logprob_questions(first))
    try:
        loss_from_logprobs(first, rows)
    except Unusable as error:
        why.append(f"prompt_logprobs: {error}")
        return "prompt_logprobs", None, loss_from_logprobs
    return "prompt_logprobs", logprob_questions, loss_from_logprobs


def logprob_questions(passage: Passage) -> list[Question]:
    """The two requests of a passage: its prompt, and its prompt with the text."""
    common = {"prompt_logprobs": 0, "max_tokens": 1}
    whole = {**common, "add_generation_prompt": False, "continue_final_message": True}
    return [
        Question(passage.id, _PROMPT, list(map(dict, passage.prompt)), common),
        Question(passage.id, _WHOLE, passage.messages(), whole),
    ]


def loss_from_logprobs(passage: Passage, rows: Rows) -> Loss:
    """The loss of a passage from both replies; Unusable says what they lack."""
    prompt, whole = (_told(rows.get((passage.id, part))) for part in (_PROMPT, _WHOLE))
    if len(whole) <= len(prompt):
        raise Unusable("the text has no token of its own in the template")
    if [token.id for token in whole[: len(prompt)]] != [token.id for token in prompt]:
        raise Unusable("the prompt's tokens do not begin the conversation's")
    own = _without_thinking(whole[len(prompt) :], passage.text)
    return _loss(passage, [token.logprob for token in own])


def _without_thinking(tokens: Sequence[_Token], text: str) -> Sequence[_Token]:
    """The tokens without the empty thinking that Qwen3's template puts before a last answer, though
    the prompt did not end with it (thinking is on): it is the template's, not the text's."""
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


def _told(row: Prediction | None) -> list[_Token]:
    """The prompt's tokens and their log-probabilities."""
    if row is None:
        raise Unusable("not asked")
    if row.error is not None:
        raise Unusable(row.error.message)
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


def _echo(
    endpoint: Endpoint, asker: Asker, target: Target, first: Passage, why: list[str]
) -> Trial:
    """The way of bare completions, if the server takes it and its template is ChatML."""
    for opening in ("", _NO_THINKING):

        def questions_of(passage: Passage, opening: str = opening) -> list[Question]:
            return [echo_question(passage, opening)]

        def loss_of(passage: Passage, rows: Rows, opening: str = opening) -> Loss:
            return loss_from_echo(passage, rows, opening)

        plain = Question(f"{first.id}+count", _PROMPT, list(map(dict, first.prompt)))
        bare = echo_question(first._replace(id=f"{first.id}+bare", text=""), opening)
        rows = _ask(asker, target, [plain, bare, *questions_of(first)])
        counts = [
            (row.usage or {}).get("prompt_tokens") if row is not None else None
            for row in (rows.get((plain.case, _PROMPT)), rows.get((bare.case, _WHOLE)))
        ]
        try:
            loss_of(first, rows)
        except Unusable as error:
            why.append(f"echo: {error}")
            return "echo", None, loss_of
        if counts[0] is not None and counts[0] == counts[1]:
            return "echo", questions_of, loss_of
    why.append("echo: the server's template is not ChatML, by its count of the prompt's tokens")
    return "echo", None, loss_of


def echo_question(passage: Passage, opening: str) -> Question:
    """The rendered conversation as a bare completion that is echoed."""
    body = {
        "prompt": chatml(passage.prompt, opening) + passage.text,
        "max_tokens": 1,
        "temperature": 0.0,
        "echo": True,
        "logprobs": 1,
    }
    return Question(passage.id, _WHOLE, [], body=body, route="completion")


def chatml(messages: Iterable[Mapping[str, Any]], opening: str = "") -> str:
    """The conversation as ChatML, up to where the answer begins."""
    turns = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages]
    return "".join(turns) + f"<|im_start|>assistant\n{opening}"


def loss_from_echo(passage: Passage, rows: Rows, opening: str) -> Loss:
    """The loss of a passage from an echoed completion; Unusable says what it lacks."""
    row = rows.get((passage.id, _WHOLE))
    if row is None or row.error is not None:
        raise Unusable("not asked" if row is None or row.error is None else row.error.message)
    told = row.logprobs if isinstance(row.logprobs, dict) else {}
    offsets, logprobs = told.get("text_offset"), told.get("token_logprobs")
    begin = len(chatml(passage.prompt, opening))
    end = begin + len(passage.text)
    if not isinstance(offsets, list) or not isinstance(logprobs, list) or not offsets:
        raise Unusable("the server's reply has no log-probabilities")
    if max(offsets) < begin:
        raise Unusable("the server does not echo the prompt")
    if begin not in offsets:
        raise Unusable("a token stands across the beginning of the text")
    pairs = zip(offsets, logprobs, strict=True)
    return _loss(passage, [value for offset, value in pairs if begin <= offset < end])


def _loss(passage: Passage, logprobs: Sequence[float | None]) -> Loss:
    values = [value for value in logprobs if value is not None]
    if not values or len(values) != len(logprobs):
        raise Unusable("a token of the text has no log-probability")
    size = len(passage.text.encode())
    return Loss(id=passage.id, nats=-math.fsum(values), tokens=len(values), bytes=size)


def _ask(asker: Asker, target: Target, questions: Sequence[Question]) -> Rows:
    asker.ask(target, questions)
    return _rows(asker.path, asker, target, questions)


def _rows(path: Path, asker: Asker, target: Target, questions: Sequence[Question]) -> Rows:
    wanted = asker.keys(target, questions)
    return {(row.case, row.repeat): row for row in read_journal(path) if row.key in wanted}


def from_model(model: Path, passages: Sequence[Passage], label: str = "local") -> Losses:
    """The losses of `passages` by the model in a folder. ChildError: it could not be run."""
    usable = [passage for passage in passages if passage.text.strip()]
    losses: list[Loss] = []
    failed: dict[str, str] = {}
    environment = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with JsonChild("palmswift.eval.measures.perplexity_worker", env=environment) as child:
        for start in range(0, len(usable), _CHUNK):
            chunk = usable[start : start + _CHUNK]
            rows = [{"prompt": list(map(dict, p.prompt)), "text": p.text} for p in chunk]
            try:
                reply = child.ask({"model": str(model), "passages": rows}, _TIMEOUT)
            except ChildGone as error:
                raise ChildError(
                    f"perplexity with {model}: {error}",
                    remedy="it needs torch and transformers: python3 quickstart.py install",
                ) from error
            if "error" in reply:
                raise InputError(f"perplexity with {model}: {reply['error']}")
            for passage, found in zip(chunk, reply["losses"], strict=True):
                if isinstance(found, str):
                    failed[passage.id] = found
                else:
                    size = len(passage.text.encode())
                    losses.append(Loss(id=passage.id, nats=found[0], tokens=found[1], bytes=size))
    return Losses(label=label, way="local", losses=losses, failed=failed)
