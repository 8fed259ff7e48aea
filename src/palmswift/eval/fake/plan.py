"""What the fake server does with one request: texts, clocks, faults, the forms of thinking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

ThinkForm = Literal[
    "reasoning_content", "reasoning", "closed", "bare_close", "unclosed", "empty", "in_code"
]
"""How a server tells thinking: in a field of its own (two names), in tags, with the opening tag in
the prompt, cut before it ended, empty as of a hybrid template, and an answer that quotes tags."""

THINK_FORMS: tuple[ThinkForm, ...] = (
    *("reasoning_content", "reasoning", "closed", "bare_close", "unclosed", "empty", "in_code"),
)


@dataclass(frozen=True)
class Chunk:
    """One event of a streamed reply."""

    text: str = ""
    reasoning: str = ""
    delay: float = 0.0
    """Seconds between the event before (or the headers) and this one."""
    tokens: int = 1
    """What it adds to the usage."""
    raw: bytes | None = None
    """Sent as it is in place of the event."""


@dataclass(frozen=True)
class Plan:
    """What the server does with one request."""

    text: str = "ok"
    reasoning: str | None = None
    """Sent apart, under `reasoning_key`."""
    reasoning_key: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    finish_reason: str = "stop"
    delay: float = 0.0
    """Seconds before anything is sent."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent as it is in place of a completion."""
    content_type: str | None = None
    """In place of application/json or text/event-stream."""
    error: Mapping[str, Any] | None = None
    """An `error` object: in place of the completion, or after half of a stream's chunks."""
    drop: Literal["before", "within"] | None = None
    """Close the connection before the reply, or in the middle of it."""
    torn: bool = False
    """A stream that ends in order, but without a finish reason and `[DONE]`."""
    endless: bool = False
    """The reply never ends: its text is sent again and again."""
    chunks: Sequence[str | Chunk] | None = None
    """The pieces of a streamed reply; null: one character each. Give them for a plain reply too:
    its text is theirs."""
    chunk_delay: float = 0.0
    """Seconds before each piece that is a plain string."""
    tool_calls: Sequence[Mapping[str, Any]] | None = None
    """As in `message.tool_calls`."""
    usage: bool = True
    """Whether tokens are told; one a character, or what the chunks say."""

    def events(self) -> list[Chunk]:
        """The text-bearing events of a streamed reply."""
        if self.chunks is not None:
            return [
                Chunk(chunk, delay=self.chunk_delay) if isinstance(chunk, str) else chunk
                for chunk in self.chunks
            ]
        thought = (
            [Chunk(reasoning=self.reasoning, delay=self.chunk_delay)] if self.reasoning else []
        )
        return [*thought, *(Chunk(piece, delay=self.chunk_delay) for piece in self.text)]

    def whole(self) -> tuple[str, str | None]:
        """Text and reasoning of a plain reply."""
        if self.chunks is None:
            return self.text, self.reasoning
        events = self.events()
        return "".join(e.text for e in events), "".join(e.reasoning for e in events) or None

    def tokens(self) -> int:
        """What the usage says of the reply."""
        if self.chunks is not None:
            return sum(event.tokens for event in self.events())
        return len(self.text)


Script = Mapping[str, Plan | Sequence[Plan]] | Callable[[list[dict[str, Any]]], Plan]
"""Plans by the last user message (or the prompt), or a function of the messages. Of a list of plans
the first request gets the first, and so on; the last one stays."""


def thinking(form: ThinkForm, answer: str, thought: str = "想一想", **fields: Any) -> Plan:
    """A plan that tells `thought` and `answer` in one of the forms that servers use."""
    if form in ("reasoning_content", "reasoning"):
        return Plan(answer, reasoning=thought, reasoning_key=form, **fields)
    text = {
        "closed": f"<think>\n{thought}\n</think>\n\n{answer}",
        "bare_close": f"{thought}\n</think>\n\n{answer}",
        "unclosed": f"<think>\n{thought}",
        "empty": f"<think>\n\n</think>\n\n{answer}",
        "in_code": f"{answer}\n```\n<think>{thought}</think>\n```",
    }[form]
    if form == "unclosed":
        fields = {"finish_reason": "length", **fields}
    return Plan(text, **fields)


class ScriptFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A script as JSON, for a server in a process of its own."""

    plans: dict[str, list[Plan]] = {}
    default: Plan = msgspec.field(default_factory=Plan)
    models: tuple[str, ...] = ("fake",)
    workers: int | None = None
    """With `service`: that many requests are served at once, the others wait."""
    service: float = 0.0
    """Mean seconds of an exponentially distributed service."""
    seed: int = 0
