"""Where training cuts a conversation: each piece of text is made into tokens by itself.

ms-swift joins neighbouring texts that weigh alike in the loss, and makes each joined text into
tokens (4.6.0, swift/template/base.py, `_simplify_context_list` and `_encode_context_list`). With a
loss on every answer, as recipes here have it, a cut stands before and after each answer, and the
empty thinking before an answer belongs to the template. A server makes the whole conversation into
tokens at once: a token may stand across such a border, and the text is another one to the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_OPEN_THINK = re.compile(r"<think>\s*\Z")
"""A template of a model that always thinks ends with it; training has it in the answer."""

_MARK = "PALMSWIFT{}ANSWER"


class Unusable(ValueError):
    """Why a text has no loss."""


class Passage(NamedTuple):
    """A text as the answer to a prompt."""

    id: str
    prompt: Sequence[Mapping[str, Any]]
    """Messages; the last is the user's."""
    text: str


def why_no_loss(text: str) -> str | None:
    """Why a text cannot be an answer with a loss of its own; None: it can."""
    if not text.strip():
        return "the text is empty"
    if text[0].isspace():
        # IgnoreEmptyThinkLossScale counts it to the block of empty thinking before it.
        return "the text begins with white space, which training counts to the template"
    return None


def thinking_of(text: str) -> bool:
    """What `enable_thinking` makes the template write before a text as training has it: an answer
    without thinking follows a block of empty thinking, one with thinking begins with its own."""
    return text.startswith("<think>")


def trained_prompt(prompt: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages before an answer, as training takes them: an empty system prompt is none.

    Unusable: the template would show another conversation than training, which joins messages of
    one role and writes tool calls in a form of its own.
    """
    turns = [dict(turn) for turn in prompt]
    if turns and turns[0]["role"] == "system" and not turns[0].get("content"):
        turns = turns[1:]
    expected = {"user"}
    for number, turn in enumerate(turns):
        role = turn["role"]
        if turn.get("tool_calls") or not isinstance(turn.get("content"), str):
            raise Unusable(f"message {number + 1} of the prompt is not plain text")
        if role == "system" and number == 0:
            continue
        if role not in expected:
            raise Unusable(
                f"message {number + 1} of the prompt is the {role}'s, where training has one of "
                f"{' or '.join(sorted(expected))}"
            )
        expected = {"user", "tool"} if role == "assistant" else {"assistant"}
    if expected != {"assistant"}:
        raise Unusable("the prompt does not end with a question")
    return turns


def marked(prompt: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """The prompt with a mark in place of each earlier answer; None: it has none."""
    turns = [dict(turn) for turn in prompt]
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    for number, turn in enumerate(answers):
        turn["content"] = _MARK.format(number)
    return turns if answers else None


def cut(prompt: Sequence[Mapping[str, Any]], rendered: str, with_marks: str | None) -> list[str]:
    """The pieces of a rendered prompt: template and earlier answers in turn.

    `with_marks` is the rendering of `marked(prompt)`. Unusable: the template changes an earlier
    answer in a way that training does not.
    """
    pieces = [rendered]
    if with_marks is not None:
        answers = [str(turn["content"]) for turn in prompt if turn["role"] == "assistant"]
        parts = _between_marks(with_marks, len(answers))
        # Template._remove_thinking_content; recipes here say `preserve_thinking: false`.
        pieces = _woven(parts, [answer.split("</think>")[-1].strip() for answer in answers])
        if "".join(pieces) != rendered:
            raise Unusable("the template changes an earlier answer otherwise than training")
    last = _OPEN_THINK.sub("", pieces[-1])
    return [piece for piece in (*pieces[:-1], last) if piece]


def _between_marks(text: str, count: int) -> list[str]:
    parts: list[str] = []
    for number in range(count):
        part, mark, text = text.partition(_MARK.format(number))
        if not mark:
            raise Unusable("the template leaves an earlier answer out")
        parts.append(part)
    return [*parts, text]


def _woven(parts: Sequence[str], answers: Sequence[str]) -> list[str]:
    woven = [parts[0]]
    for answer, part in zip(answers, parts[1:], strict=True):
        woven += [answer, part]
    return woven
