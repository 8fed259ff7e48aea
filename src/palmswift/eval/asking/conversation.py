"""What is sent to a model and what is expected of it: messages, and cases made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from palmswift.eval.hashes import canonical_json
from palmswift.eval.suites.assertions import Assertion, needs_reference


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


class FollowUp(BaseModel):
    """A further question of a conversation that goes on with the model's own answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Text
    reference: Text | None = None
    references: list[Text] = Field(default_factory=list)
    assertions: list[Assertion] = Field(default_factory=list)


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
    references: list[Text] = Field(default_factory=list)
    """Further answers that are as good; each metric counts the one it likes best."""
    tags: list[str] = Field(default_factory=list)
    """Groups that results are summed up by."""
    repeats: int = Field(default=1, ge=1)
    """How many times the case is asked."""
    assertions: list[Assertion] = Field(default_factory=list)
    """The case passes when all of them hold; without any it is measured, not judged."""
    weight: float = Field(default=1.0, gt=0)
    """What the case counts for in the pass rate."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Further fields of its request: tools, response_format, max_tokens, temperature, ..."""
    then: list[FollowUp] = Field(default_factory=list)
    """Further questions, each asked after the model's own answer to the one before; a case each,
    called ID+1, ID+2, ..."""
    after: str | None = None
    """Of such a further question: the id of the case before it."""

    @model_validator(mode="after")
    def _one_conversation(self) -> Case:
        if (self.question is None) == (not self.messages):
            raise ValueError(f"case {self.id}: give either `question` or `messages`")
        if self.messages and self.messages[-1].role != "user":
            raise ValueError(f"case {self.id}: the last of `messages` must be the user's")
        if self.after is not None and self.question is None:
            raise ValueError(f"case {self.id}: what is asked `after` another is a `question`")
        fixed = sorted({"messages", "model", "stream"} & self.request.keys())
        if fixed:
            raise ValueError(f"case {self.id}: `request` cannot set {', '.join(fixed)}")
        parts: list[Case | FollowUp] = [self, *self.then]
        for number, part in enumerate(parts):
            if not part.reference and not part.references:
                needy = [a.kind for a in part.assertions if needs_reference(a)]
                if needy:
                    which = f"case {self.id}" + (f", `then` {number}" if number else "")
                    raise ValueError(
                        f"{which}: `{needy[0]}` needs a `value` or the case a `reference`"
                    )
        return self

    @property
    def turns(self) -> list[Message]:
        """The messages to send; of a case that is asked after another, its own question."""
        return self.messages or [Message(role="user", content=self.question or "")]

    @property
    def all_references(self) -> list[str]:
        """`reference` and `references` together, each once."""
        first = [self.reference] if self.reference is not None else []
        return list(dict.fromkeys([*first, *self.references]))

    def conversation(self, before: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
        """The messages to send, as JSON; `before` is what was said before the case."""
        own = [{"role": turn.role, "content": turn.content} for turn in self.turns]
        return [*map(dict, before), *own]

    def with_system(self, system: str | None) -> Case:
        """The case with `system` put first, unless it has a system message of its own."""
        if system is None or self.after is not None or self.turns[0].role == "system":
            return self
        turns = [Message(role="system", content=system), *self.turns]
        return self.model_copy(update={"question": None, "messages": turns})

    def flattened(self) -> list[Case]:
        """The case and a case for each of its `then`."""
        cases = [self.model_copy(update={"then": []})]
        for number, turn in enumerate(self.then, start=1):
            common = {"tags": self.tags, "repeats": self.repeats, "weight": self.weight}
            cases.append(
                Case.model_validate(
                    {
                        **common,
                        "id": f"{self.id}+{number}",
                        "after": cases[-1].id,
                        "question": turn.question,
                        "reference": turn.reference,
                        "references": turn.references,
                        "assertions": turn.assertions,
                        "request": self.request,
                    }
                )
            )
        return cases


def content_id(document: Any) -> str:
    """12 hex digits that stand for the content of a JSON document."""
    return canonical_hash(document)[:12]


def canonical_hash(document: Any) -> str:
    """SHA-256, in hex, of the document as JSON with sorted keys."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
