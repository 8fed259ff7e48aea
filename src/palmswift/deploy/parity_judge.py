"""Whether a server answers as the trained model does, and if not, for which usual cause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from statistics import fmean
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from palmswift.deploy.parity_probe import Observed, Said
from palmswift.deploy.parity_truth import Expected, Truth

PromptState = Literal["same", "same_length", "differs", "not_told"]
"""`same_length`: the server tells only how many tokens it has seen, and it is that many."""

AnswerState = Literal["same", "tie", "differs", "refused"]
"""`tie`: it differs from a token on that was a close call, which rounding may decide."""

CAUSES: dict[str, tuple[str, str]] = {
    "refused": (
        "the server refuses a prompt that the training took",
        "its reply says why; a context length (max_model_len) below the training's is the usual",
    ),
    "thinking": (
        "the server has the other thinking policy",
        "serve with --set enable_thinking={thinking}, or send "
        'chat_template_kwargs {{"enable_thinking": {thinking}}}: vLLM thinks by default',
    ),
    "system_prompt": (
        "the server puts in a system prompt, or leaves one out",
        "serve with the training's `system`, or with none",
    ),
    "extra_start_token": (
        "the server puts a token before the prompt that was not there in training",
        "the tokenizer's add_bos_token, or the chat template's first line, was changed",
    ),
    "prompt_cut": (
        "the server cuts the prompt",
        "a larger max_model_len (vllm_max_model_len, num_ctx for Ollama)",
    ),
    "tokenizer": (
        "the same text becomes other tokens on the server",
        "serve with the tokenizer that lies beside the trained weights",
    ),
    "template": (
        "the server has another chat template",
        "serve with the training's `template`, or its chat_template.jinja",
    ),
    "adapter_missing": (
        "the server answers as the untouched base model does: the training is not in it",
        "load the adapter (--adapters, or --enable-lora and the adapter's name as `model`)",
    ),
    "stop_missing": (
        "the server goes on after the token that ended answers in training",
        "its generation_config.json needs eos_token_id {stop}",
    ),
    "answer_cut": (
        "the server ends answers early, before the number of tokens that was asked for",
        "a larger max_model_len or max_new_tokens on the server; fewer stop words",
    ),
    "generation_defaults": (
        "the server changes the likeliest answer by settings of its own",
        "repetition_penalty 1 and no other penalty, in the requests or in the model's "
        "generation_config.json (vLLM: --generation-config vllm)",
    ),
    "not_greedy": (
        "the server gives two answers to one request with temperature 0",
        "it samples: look for do_sample or a forced temperature among its settings",
    ),
    "lossy_weights": (
        "the server's weights are a rounded form of the trained ones",
        "a merge into 16 bit of an adapter that was trained on 4 bit, or a quantisation; "
        "serve the adapter on its own base, or accept it with --max-divergence",
    ),
    "quantisation_loss": (
        "the quantisation has cost more than the limit",
        "a form with more bits (GGUF: q5_k_m, q6_k or q8_0); or accept it with --max-divergence",
    ),
    "merge_loss": (
        "the merge has cost more than the limit",
        "serve the adapter on its own base, or accept it with --max-divergence",
    ),
    "other_weights": (
        "the server has other weights than the trained ones",
        "another checkpoint, another base under the adapter, or another model under this name",
    ),
}
"""Every cause that is told apart: what it is, and what to do."""

_EXPLAINS = {
    "adapter_missing": ("other_weights", "lossy_weights"),
    "other_weights": ("lossy_weights",),
}
"""What one prompt shows for certain explains what others only hint at."""

LOSSY_LIMIT = 1.0
"""Nats a token: rounding to 4 bits moves log-probabilities by tenths, other weights by more."""


class Limits(NamedTuple):
    """What still counts as the same."""

    tie: float
    """Nats between the two likeliest tokens under which a difference is rounding."""
    divergence: float
    """Mean difference of log-probabilities, in nats a token."""


class Compared(BaseModel):
    """One prompt: what the server saw and said against what it should have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    prompt: PromptState
    answer: AnswerState
    divergence: float | None
    """Mean absolute difference of the log-probabilities over the common beginning, in nats."""
    cause: str | None = None
    """A key of CAUSES."""
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return self.cause is None


class ParityReport(BaseModel):
    """`deploy/parity.json` of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: Literal[1] = 1
    run: str
    endpoint: str
    model: str
    max_tokens: int
    tells_tokens: bool
    """Whether the server said which tokens it saw; if not, their number was compared."""
    prompts: list[Compared]
    divergence: float | None
    """Mean over all prompts that can be compared, in nats a token."""
    causes: dict[str, list[str]]
    """Each cause that was found, with the prompts that show it."""

    @property
    def passed(self) -> bool:
        """Whether the served model is the trained one as far as was looked."""
        return not self.causes


def judge(
    expected: Expected,
    seen: Observed,
    truth: Truth,
    limits: Limits,
    decode: Callable[[Sequence[int]], str],
) -> Compared:
    """Compare one prompt; the first cause in the order in which one hides the next."""
    plain = seen.plain
    name = expected.prompt.name
    if plain.error:
        return Compared(
            name=name,
            prompt="not_told",
            answer="refused",
            divergence=None,
            cause="refused",
            detail=plain.error,
        )
    prompt = _prompt_state(expected, plain)
    answer = _answer_state(expected, plain, truth, limits)
    divergence = _divergence(expected, plain, truth)
    cause: str | None = None
    detail = ""
    if prompt == "differs":
        cause, detail = _prompt_cause(expected, plain, decode)
    elif answer == "differs":
        cause, detail = _answer_cause(expected, seen, truth, limits, divergence)
    elif divergence is not None and divergence > limits.divergence:
        cause, detail = _weights(divergence)
    return Compared(
        name=name, prompt=prompt, answer=answer, divergence=divergence, cause=cause, detail=detail
    )


def in_doubt(expected: Expected, seen: Said, truth: Truth, limits: Limits) -> bool:
    """Whether asking again can tell why the answer is another one."""
    if seen.error or _prompt_state(expected, seen) == "differs":
        return False
    return _answer_state(expected, seen, truth, limits) == "differs"


def _prompt_state(expected: Expected, seen: Said) -> PromptState:
    if seen.prompt_ids is not None and seen.prompt_ids != expected.prompt_ids:
        return "differs"
    if seen.prompt_tokens is None:
        return "not_told" if seen.prompt_ids is None else "same"
    if seen.prompt_ids is not None and seen.prompt_tokens == len(seen.prompt_ids):
        return "same"
    # ms-swift leaves padding out of the tokens that it tells, and counts it.
    return "same_length" if seen.prompt_tokens == len(expected.prompt_ids) else "differs"


def _prompt_cause(
    expected: Expected, seen: Said, decode: Callable[[Sequence[int]], str]
) -> tuple[str, str]:
    """Why the server saw another prompt, and the first place where it did."""
    ours, theirs = expected.prompt_ids, seen.prompt_ids
    if theirs is None or theirs == ours:
        if seen.prompt_tokens == len(ours) + 1:
            return "extra_start_token", f"{len(ours)} tokens in training, one more on the server"
        told = {name for name, ids in expected.variants.items() if len(ids) == seen.prompt_tokens}
        kinds = {_variant_cause(name) for name in told}
        what = f"{len(ours)} tokens in training, {seen.prompt_tokens} on the server"
        return (kinds.pop() if len(kinds) == 1 else "template"), what
    detail = _first_difference(ours, theirs, decode)
    for name, ids in expected.variants.items():
        if ids == theirs:
            return _variant_cause(name), detail
    if len(theirs) > 1 and theirs[1:] == ours:
        return "extra_start_token", detail
    if len(theirs) < len(ours) and theirs and _is_part(theirs, ours):
        return "prompt_cut", detail
    return ("tokenizer" if decode(ours) == decode(theirs) else "template"), detail


def _variant_cause(name: str) -> str:
    """Which mistake a variant is of; a changed system prompt outweighs the thinking policy."""
    parts = set(name.split("+"))
    if parts & {"no_system", "other_system"}:
        return "system_prompt"
    return "thinking"


def _is_part(part: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether it is the beginning, the end, or both with the middle left out."""
    head = len(_common(part, whole))
    tail = len(_common(part[::-1], whole[::-1]))
    return head + tail >= len(part)


def _first_difference(
    ours: Sequence[int], theirs: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> str:
    at = len(_common(ours, theirs))
    before = decode(ours[max(0, at - 4) : at])
    here, there = (decode(ids[at : at + 6]) or "(its end)" for ids in (ours, theirs))
    return f"token {at + 1}, after {before!r}: {here!r} in training, {there!r} on the server"


def _common(first: Sequence[int], second: Sequence[int]) -> list[int]:
    pairs = zip(first, second, strict=False)
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _content(ids: Sequence[int], truth: Truth) -> list[int]:
    """The tokens up to the first that stops."""
    return list(takewhile(lambda one: one not in truth.stop_ids, ids))


def _answer_state(expected: Expected, seen: Said, truth: Truth, limits: Limits) -> AnswerState:
    answer = expected.answer
    if seen.ids is None:
        return "same" if seen.text == answer.text else "differs"
    ours, theirs = _content(answer.ids, truth), _content(seen.ids, truth)
    if ours == theirs and not _goes_on(seen.ids, truth):
        return "same"
    at = len(_common(answer.ids, seen.ids))
    if at < len(answer.gaps) and answer.gaps[at] < limits.tie and at < len(seen.ids):
        return "tie"
    return "differs"


def _goes_on(ids: Sequence[int], truth: Truth) -> bool:
    """Whether there is more after a stop token."""
    return len(_content(ids, truth)) < len(ids) - 1


def _divergence(expected: Expected, seen: Said, truth: Truth) -> float | None:
    """Mean |difference| of the log-probabilities while both answers have the same tokens."""
    if not seen.logprobs:
        return None
    ids = seen.ids
    same = len(_common(expected.answer.ids, ids)) if ids is not None else 0
    if ids is None and seen.text == expected.answer.text:
        same = len(expected.answer.ids)
    pairs = [*zip(expected.answer.logprobs[:same], seen.logprobs[:same], strict=False)]
    known = [abs(one - other) for one, other in pairs if other is not None]
    return fmean(known) if known else None


def _answer_cause(
    expected: Expected, seen: Observed, truth: Truth, limits: Limits, divergence: float | None
) -> tuple[str, str]:
    """Why the server answers otherwise to the same prompt."""
    answer, plain = expected.answer, seen.plain
    detail = f"{answer.text[:60]!r} by the trained model, {plain.text[:60]!r} by the server"
    if _answers(expected, seen.again) != _answers(expected, plain):
        return "not_greedy", f"{plain.text[:60]!r}, then {seen.again.text[:60]!r}"
    if answer.finished and _extends(expected, plain, truth):
        return "stop_missing", detail
    if _ends_early(expected, plain, truth):
        return "answer_cut", detail
    if _answer_state(expected, seen.neutral, truth, limits) in ("same", "tie"):
        return "generation_defaults", detail
    if _says_as_base(expected, plain, truth):
        return "adapter_missing", detail
    return _weights(divergence, detail)


def _answers(expected: Expected, seen: Said) -> list[int] | str:
    return seen.text if seen.ids is None else seen.ids


def _extends(expected: Expected, seen: Said, truth: Truth) -> bool:
    if seen.ids is None:
        text = expected.answer.text
        return seen.text.startswith(text) and len(seen.text) > len(text)
    ours = _content(expected.answer.ids, truth)
    return seen.ids[: len(ours)] == ours and len(seen.ids) > len(ours) + 1


def _ends_early(expected: Expected, seen: Said, truth: Truth) -> bool:
    if seen.ids is None:
        text = expected.answer.text
        return text.startswith(seen.text) and len(seen.text) < len(text)
    ours, theirs = _content(expected.answer.ids, truth), _content(seen.ids, truth)
    return len(theirs) < len(ours) and ours[: len(theirs)] == theirs


def _says_as_base(expected: Expected, seen: Said, truth: Truth) -> bool:
    base = expected.base
    if seen.ids is None:
        return bool(base.text) and seen.text == base.text != expected.answer.text
    same = len(_common(base.ids, seen.ids))
    return (
        same == min(len(base.ids), len(seen.ids))
        and base.ids[:same] != (expected.answer.ids[:same])
    )


def _weights(divergence: float | None, detail: str = "") -> tuple[str, str]:
    """Rounded weights, or others, by how far the probabilities are apart before they part."""
    if divergence is None:
        return "other_weights", detail
    far = f"log-probabilities {divergence:.3g} nats a token apart"
    kind = "lossy_weights" if divergence < LOSSY_LIMIT else "other_weights"
    return kind, "; ".join(filter(None, (far, detail)))


def report(
    run: str,
    endpoint: str,
    model: str,
    truth: Truth,
    compared: Sequence[Compared],
    *,
    tells_tokens: bool,
) -> ParityReport:
    """All prompts together."""
    causes: dict[str, list[str]] = {}
    for one in compared:
        if one.cause is not None:
            causes.setdefault(one.cause, []).append(one.name)
    for likelier, explained in _EXPLAINS.items():
        for cause in explained if likelier in causes else ():
            causes[likelier] = [
                one.name
                for one in compared
                if one.name in causes[likelier] or one.name in causes.get(cause, ())
            ]
            causes.pop(cause, None)
    measured = [one.divergence for one in compared if one.divergence is not None]
    return ParityReport(
        run=run,
        endpoint=endpoint,
        model=model,
        max_tokens=truth.max_tokens,
        tells_tokens=tells_tokens,
        prompts=list(compared),
        divergence=fmean(measured) if measured else None,
        causes=causes,
    )
