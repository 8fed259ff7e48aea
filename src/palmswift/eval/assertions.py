"""What a case can demand of an answer, and whether an answer meets it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Assertion(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Exact(_Assertion):
    """The answer is this text, outer whitespace apart."""

    kind: Literal["exact"]
    value: str | None = None
    """The text; null: the case's reference."""


class Contains(_Assertion):
    """The answer has this text in it."""

    kind: Literal["contains"]
    value: str = Field(min_length=1)


class ContainsAny(_Assertion):
    """The answer has at least one of these texts in it."""

    kind: Literal["contains_any"]
    values: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)


class ContainsAll(_Assertion):
    """The answer has each of these texts in it."""

    kind: Literal["contains_all"]
    values: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)


class NotContains(_Assertion):
    """The answer does not have this text in it."""

    kind: Literal["not_contains"]
    value: str = Field(min_length=1)


class Regex(_Assertion):
    """The pattern (Python's `re`, searched anywhere) is found in the answer."""

    kind: Literal["regex"]
    pattern: str = Field(min_length=1)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class MaxChars(_Assertion):
    """The answer is at most this many characters (Unicode code points) long."""

    kind: Literal["max_chars"]
    value: int = Field(ge=0)


class MinChars(_Assertion):
    """The answer is at least this many characters (Unicode code points) long."""

    kind: Literal["min_chars"]
    value: int = Field(ge=0)


Assertion = Annotated[
    Exact | Contains | ContainsAny | ContainsAll | NotContains | Regex | MaxChars | MinChars,
    Field(discriminator="kind"),
]
"""One demand; `kind` says which."""


class AssertionResult(BaseModel):
    """Whether one demand was met, and the demand in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    expected: str
    state: Literal["passed", "failed", "error"]
    """`error`: it could not be evaluated (no reference, no such function, ...)."""
    detail: str | None = None
    """What was found instead, or why it could not be evaluated."""
    weight: float = 1.0
    parts: list[AssertionResult] = []
    """Of a group: its members' results."""

    @property
    def passed(self) -> bool:
        """Whether the demand is met; an error is neither met nor failed."""
        return self.state == "passed"


def check(assertion: Assertion, answer: str, reference: str | None) -> AssertionResult:
    """Whether `answer` (compared without outer whitespace) meets `assertion`."""
    text = answer.strip()
    match assertion:
        case Exact(value=value):
            target = value if value is not None else reference
            expected, passed = target or "", target is not None and text == target.strip()
        case Contains(value=value):
            expected, passed = value, value in text
        case ContainsAny(values=values):
            expected, passed = " | ".join(values), any(value in text for value in values)
        case ContainsAll(values=values):
            expected, passed = " & ".join(values), all(value in text for value in values)
        case NotContains(value=value):
            expected, passed = value, value not in text
        case Regex(pattern=pattern):
            expected, passed = pattern, re.search(pattern, text) is not None
        case MaxChars(value=limit):
            expected, passed = f"{limit} ({len(text)})", len(text) <= limit
        case MinChars(value=limit):
            expected, passed = f"{limit} ({len(text)})", len(text) >= limit
    return AssertionResult(
        kind=assertion.kind, expected=expected, state="passed" if passed else "failed"
    )
