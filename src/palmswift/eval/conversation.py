"""What is sent to a model and what is expected of it: messages, and cases made of them."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from palmswift.eval.assertions import Assertion, Exact
from palmswift.eval.hashes import canonical_json


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell
        raise ValueError(f"the text cannot be sent as UTF-8: {error.reason}") from error
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class Message(BaseModel):
    """One turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Text


def messages_of(turns: list[Any]) -> list[Message]:
    """The messages of a JSON list; ValueError says what is no message. Other keys are left out."""
    messages = []
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise ValueError("a message is not {role, content} with text as content")
        if turn.get("role") not in ("system", "user", "assistant"):
            raise ValueError(f"role {turn.get('role')!r} is not system, user or assistant")
        messages.append(Message(role=turn["role"], content=turn["content"]))
    return messages


class Case(BaseModel):
    """One question to a model and what its answer is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    question: Text | None = None
    """Short for one user message."""
    messages: list[Message] = Field(default_factory=list)
    """The conversation so far; its last message is the user's."""
    reference: Text | None = None
    """The answer that was hoped for."""
    tags: list[str] = Field(default_factory=list)
    """Groups that results are summed up by."""
    repeats: int = Field(default=1, ge=1)
    """How many times the case is asked."""
    assertions: list[Assertion] = Field(default_factory=list)
    """The case passes when all of them hold; without any it is measured, not judged."""
    weight: float = Field(default=1.0, gt=0)
    """What the case counts for in the pass rate."""

    @model_validator(mode="after")
    def _one_conversation(self) -> Case:
        if (self.question is None) == (not self.messages):
            raise ValueError(f"case {self.id}: give either `question` or `messages`")
        if self.messages and self.messages[-1].role != "user":
            raise ValueError(f"case {self.id}: the last of `messages` must be the user's")
        if self.reference is None and any(
            isinstance(a, Exact) and a.value is None for a in self.assertions
        ):
            raise ValueError(f"case {self.id}: `exact` needs a `value` or the case a `reference`")
        return self

    @property
    def turns(self) -> list[Message]:
        """The messages to send."""
        return self.messages or [Message(role="user", content=self.question or "")]

    def conversation(self) -> list[dict[str, str]]:
        """The messages to send, as JSON."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]

    def with_system(self, system: str | None) -> Case:
        """The case with `system` put first, unless it has a system message of its own."""
        if system is None or self.turns[0].role == "system":
            return self
        turns = [Message(role="system", content=system), *self.turns]
        return self.model_copy(update={"question": None, "messages": turns})


def content_id(document: Any) -> str:
    """12 hex digits that stand for the content of a JSON document."""
    return canonical_hash(document)[:12]


def canonical_hash(document: Any) -> str:
    """SHA-256, in hex, of the document as JSON with sorted keys."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
