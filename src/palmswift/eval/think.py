"""The answer and the thinking before it, told apart in the forms that servers send them."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

OPEN, CLOSE = "<think>", "</think>"
# A reply whose opening tag was part of the prompt: the closing tag stands on a line of its own.
_BARE_CLOSE = re.compile(rf"(?:\A|\n)[ \t]*{CLOSE}[ \t]*(?:\n|\Z)")


class Thought(NamedTuple):
    """A reply in its two parts."""

    answer: str | None
    """What is graded; None when the thinking never ended, since then nothing was answered."""
    reasoning: str | None
    """The thinking; None when there was none, or only whitespace."""


def split_think(content: str | None, reasoning: str | None = None) -> Thought:
    """The answer in `content`, without the thinking that some servers leave in it.

    `reasoning` is what the server sent apart (`reasoning_content` or `reasoning`). ms-swift's
    hybrid Qwen3 template begins the content with an empty `<think>` block.
    """
    apart = (reasoning or "").strip() or None
    text = content or ""
    body = text.lstrip()
    if body.startswith(OPEN):
        inside, closed, after = body[len(OPEN) :].partition(CLOSE)
        thought = inside.strip() or apart
        return Thought(after.lstrip("\r\n") if closed else None, thought)
    bare = _BARE_CLOSE.search(text)
    if bare and OPEN not in text:
        return Thought(text[bare.end() :].lstrip("\r\n"), text[: bare.start()].strip() or apart)
    if apart is not None and not text.strip():
        return Thought(None, apart)
    return Thought(text, apart)


class Piece(NamedTuple):
    """A part of a streamed reply."""

    kind: Literal["answer", "reasoning"]
    text: str


class ThinkStream:
    """Tells thinking from answer while a reply streams in; tags may be cut anywhere."""

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
