"""The answer and the thinking before it, told apart in the forms that servers send them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

OPEN, CLOSE = "<think>", "</think>"
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_QUOTED = re.compile(r"[\"'“‘「『《]</?think>[\"'”’」』》]")
_TAG = re.compile(r"</?think>")

ThinkState = Literal["none", "empty", "whole", "unclosed"]
"""No thinking, an empty block, thinking that ended, thinking that was cut before it ended."""


class Thought(NamedTuple):
    """A reply in its two parts."""

    answer: str | None
    """What is graded; None when the thinking never ended, since then nothing was answered."""
    reasoning: str | None
    """The thinking; None when there was none, or only whitespace."""


class ThinkStats(NamedTuple):
    """How much a reply thought before it answered."""

    state: ThinkState
    reasoning_chars: int
    answer_chars: int

    @property
    def share(self) -> float | None:
        """The thinking's part of all characters; None of an empty reply."""
        total = self.reasoning_chars + self.answer_chars
        return self.reasoning_chars / total if total else None


def split_think(content: str | None, reasoning: str | None = None) -> Thought:
    """The answer in `content`, without the thinking that some servers leave in it.

    `reasoning` is what the server sent apart (`reasoning_content` or `reasoning`). ms-swift's
    hybrid Qwen3 template begins the content with an empty `<think>` block. A block ends at the tag
    that closes it: blocks within it, and tags in code or quotation marks, belong to it. A closing
    tag alone ends thinking whose opening tag stood in the prompt. Whole blocks in the middle of an
    answer are text of the answer.
    """
    apart = (reasoning or "").strip() or None
    text = content or ""
    body = text.lstrip()
    if body.startswith(OPEN):
        end = _closing(body)
        if end is None:
            return Thought(None, _joined(apart, body[len(OPEN) :]))
        answer = body[end + len(CLOSE) :].lstrip("\r\n")
        return Thought(answer, _joined(apart, body[len(OPEN) : end]))
    first = next(_tags(text), None)
    if first is not None and first.group() == CLOSE:
        inside = text[: first.start()]
        return Thought(text[first.end() :].lstrip("\r\n"), _joined(apart, inside))
    if apart is not None and not text.strip():
        return Thought(None, apart)
    return Thought(text, apart)


def think_stats(content: str | None, reasoning: str | None = None) -> ThinkStats:
    """How long thinking and answer of a reply are, in characters."""
    thought = split_think(content, reasoning)
    inside = len(thought.reasoning or "")
    state: ThinkState
    if thought.answer is None:
        state = "unclosed"
    elif inside:
        state = "whole"
    else:
        state = "empty" if len(thought.answer) < len((content or "").strip()) else "none"
    return ThinkStats(state, inside, len(thought.answer or ""))


def _tags(text: str) -> Iterator[re.Match[str]]:
    """The tags that are not in code or quotation marks."""
    quoted = [match.span() for pattern in (_CODE, _QUOTED) for match in pattern.finditer(text)]
    for tag in _TAG.finditer(text):
        if not any(start < tag.start() < end for start, end in quoted):
            yield tag


def _closing(body: str) -> int | None:
    """Where the tag stands that closes the block which `body` opens with; None: there is none.

    Blocks may stand in it. Where they do not match, as when the thinking speaks of `<think>`, the
    last closing tag counts; and one that seems to be quoted, where there is no other.
    """
    depth = 0
    last = None
    for tag in _tags(body):
        depth += 1 if tag.group() == OPEN else -1
        if tag.group() == CLOSE:
            last = tag.start()
            if depth == 0:
                return last
    if last is None and CLOSE in body:
        last = body.rindex(CLOSE)
    return last


def _joined(apart: str | None, inside: str) -> str | None:
    """What was sent apart and what stood in the content, should a server send both; the same text
    once."""
    parts = dict.fromkeys(part for part in (apart, inside.strip()) if part)
    return "\n".join(parts) or None


class Piece(NamedTuple):
    """A part of a streamed reply."""

    kind: Literal["answer", "reasoning"]
    text: str


class ThinkStream:
    """Tells thinking from answer while a reply streams in; tags may be cut anywhere.

    The first closing tag ends the thinking, since what follows is not known yet; should the
    thinking have quoted the tag, `split_think` of the whole reply knows better.
    """

    def __init__(self) -> None:
        self._state: Literal["start", "thinking", "gap", "answer"] = "start"
        self._held = ""

    def feed(self, delta: str) -> list[Piece]:
        """The pieces that are certain once `delta` has come."""
        self._held += delta
        pieces: list[Piece] = []
        if self._state == "start":
            body = self._held.lstrip()
            if body.startswith(OPEN):
                self._state, self._held = "thinking", body[len(OPEN) :]
            elif not OPEN.startswith(body):
                self._state = "answer"
        if self._state == "thinking":
            inside, closed, after = self._held.partition(CLOSE)
            if not closed:
                keep = _overlap(inside, CLOSE)
                inside, after = inside[: len(inside) - keep], inside[len(inside) - keep :]
            else:
                self._state = "gap"
            self._held = after
            if inside:
                pieces.append(Piece("reasoning", inside))
        if self._state == "gap":
            self._held = self._held.lstrip("\r\n")
            if self._held:
                self._state = "answer"
        if self._state == "answer" and self._held:
            pieces.append(Piece("answer", self._held))
            self._held = ""
        return pieces

    def close(self) -> list[Piece]:
        """What was held back when the stream ended."""
        kind: Literal["answer", "reasoning"] = (
            "reasoning" if self._state == "thinking" else "answer"
        )
        return [Piece(kind, self._held)] if self._held else []


def _overlap(text: str, tag: str) -> int:
    """The length of the longest end of `text` that `tag` begins with."""
    return next((n for n in range(min(len(tag), len(text)), 0, -1) if tag.startswith(text[-n:])), 0)
