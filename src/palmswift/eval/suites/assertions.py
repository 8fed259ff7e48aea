"""What a case can demand of an answer, as it is written in a suite; `checking` holds answers to it.

Every demand can be turned round (`not: true`) and weighted (`weight: 2`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from palmswift.eval.measures.metrics import PER_ANSWER

Word = Annotated[str, Field(min_length=1)]
PiiKind = Literal["phone_number", "id_number", "bank_card", "email"]
PII_KINDS: tuple[PiiKind, ...] = ("phone_number", "id_number", "bank_card", "email")
Language = Literal["zh", "en", "ja", "ko", "ru", "ar"]


class Demand(BaseModel):
    """What all assertions have."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    negate: bool = Field(default=False, alias="not")
    """The demand must not hold. What cannot be evaluated stays an error."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """What it counts for in the answer's score; a case passes only when all its demands hold."""


class Exact(Demand):
    """The answer is `value` or, without it, one of the references; outer whitespace apart."""

    kind: Literal["exact"]
    value: str | None = None
    """The text; null: one of the case's references."""
    ignore_case: bool = False


class Contains(Demand):
    """The answer has this text in it."""

    kind: Literal["contains"]
    value: Word
    ignore_case: bool = False


class ContainsAny(Demand):
    """The answer has at least one of these texts in it."""

    kind: Literal["contains_any"]
    values: list[Word] = Field(min_length=1)
    ignore_case: bool = False


class ContainsAll(Demand):
    """The answer has each of these texts in it."""

    kind: Literal["contains_all"]
    values: list[Word] = Field(min_length=1)
    ignore_case: bool = False


class NotContains(Demand):
    """The answer does not have this text in it."""

    kind: Literal["not_contains"]
    value: Word
    ignore_case: bool = False


class Regex(Demand):
    """The pattern (Python's `re`) is found in the answer, or is the `whole` of it."""

    kind: Literal["regex"]
    pattern: Word
    ignore_case: bool = False
    whole: bool = False
    """The pattern must describe the answer from its beginning to its end."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class Json(Demand):
    """The answer is JSON, or has one fenced block of it, or one object or list in its text."""

    kind: Literal["json"]
    strict: bool = False
    """The whole answer must be JSON, without a fence or words around it."""


class JsonSchema(Demand):
    """The answer's JSON (found as `json` finds it) fits this JSON Schema."""

    kind: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool = False

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for

        try:
            validator_for(schema).check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"not a JSON Schema: {error.message}") from error
        return schema


class Number(Demand):
    """The answer's last, first or any number is `value`, within `tolerance` or a `relative` share
    of it; in digits, Chinese numerals or English words (1,080 · 三百二十 · 75% · eight)."""

    kind: Literal["number"]
    value: float = Field(allow_inf_nan=False)
    tolerance: float = Field(default=1e-9, ge=0, allow_inf_nan=False)
    """Largest difference."""
    relative: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Largest difference as a share of `value`; the larger of the two bounds counts."""
    which: Literal["last", "first", "any"] = "last"
    """Which of the answer's numbers. A result is usually the last."""


class Choice(Demand):
    """The answer settles on this option of a multiple choice question."""

    kind: Literal["choice"]
    value: str = Field(pattern="^[A-Z]$")
    options: str = Field(default="ABCD", pattern="^[A-Z]{2,26}$")

    @model_validator(mode="after")
    def _is_an_option(self) -> Choice:
        if self.value not in self.options:
            raise ValueError(f"`value` {self.value} is none of `options` {self.options}")
        return self


class Length(Demand):
    """The answer is from `min` to `max` long, in chars (Unicode code points), words (English words
    and Chinese ones), tokens (as the server counted them, so not when it thought) or lines."""

    kind: Literal["length"]
    unit: Literal["chars", "words", "tokens", "lines"] = "chars"
    """Chinese words are jieba's; empty lines do not count."""
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bounded(self) -> Length:
        _require_bounds(self.kind, self.min, self.max)
        return self


class MaxChars(Demand):
    """The answer is at most this many characters (Unicode code points) long."""

    kind: Literal["max_chars"]
    value: int = Field(ge=0)


class MinChars(Demand):
    """The answer is at least this many characters (Unicode code points) long."""

    kind: Literal["min_chars"]
    value: int = Field(ge=0)


class InLanguage(Demand):
    """The answer's words are mostly of this language, by script (`en` is any Latin script)."""

    kind: Literal["language"]
    value: Language
    share: float = Field(default=0.7, gt=0, le=1)
    """At least this share of the words; a Chinese character counts as one."""


class Refusal(Demand):
    """The answer declines to do what was asked, going by its wording in Chinese or English."""

    kind: Literal["refusal"]


class NoPii(Demand):
    """The answer has no personal data in it: mobile, identity or bank card number, e-mail."""

    kind: Literal["no_pii"]
    kinds: Annotated[list[PiiKind], Field(min_length=1)] = list(PII_KINDS)
    allow: list[Word] = Field(default_factory=list)
    """Texts that may stand there, such as the shop's own address."""


class NoSecrets(Demand):
    """The answer has no key, token, password or private key in it, nor one of these texts."""

    kind: Literal["no_secrets"]
    values: list[Word] = Field(default_factory=list)
    """Further texts that must not leak, such as a canary in the system prompt; letters' case and
    spaces between characters are passed over."""
    allow: list[Word] = Field(default_factory=list)


class ToolCall(Demand):
    """The reply calls this tool; the case's `request` gives the model its `tools`."""

    kind: Literal["tool_call"]
    name: Word
    arguments: dict[str, Any] | None = None
    """Arguments that the call must have (others may stand beside them); null: any."""
    exact_arguments: bool = False
    """No others may."""


class Similarity(Demand):
    """The answer is this much like the text: 2 x longest common subsequence / both lengths, by
    characters, 0 to 1. Outer whitespace apart."""

    kind: Literal["similarity"]
    min: float = Field(ge=0, le=1)
    value: str | None = None
    """The text; null: the reference it is most like."""


class MetricBound(Demand):
    """One of the answer's metrics against the case's references is from `min` to `max`, in the
    metric's own scale."""

    kind: Literal["metric"]
    name: Annotated[str, Field(json_schema_extra={"enum": sorted(PER_ANSWER)})]
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _bounded(self) -> MetricBound:
        if self.name not in PER_ANSWER:
            raise ValueError(f"no metric {self.name!r} of one answer: {', '.join(PER_ANSWER)}")
        _require_bounds(self.kind, self.min, self.max)
        return self


class BertScoreBound(Demand):
    """BERTScore's F1 against the reference that it is most like is at least `min` of 100, by a BERT
    on this disk. It runs in a process of its own."""

    kind: Literal["bertscore"]
    model: Word
    """A folder, relative to the suite's or the project; one of an unknown name needs `layer`."""
    layer: int | None = Field(default=None, ge=0)
    min: float = Field(ge=0, le=100)


class Latency(Demand):
    """The whole reply came within so many seconds."""

    kind: Literal["latency"]
    max: float = Field(gt=0, allow_inf_nan=False)


class FinishReason(Demand):
    """The server ended the reply for this reason (`stop`, `length`, `tool_calls`, ...)."""

    kind: Literal["finish_reason"]
    value: Word


class Python(Demand):
    """A function of your own says so: `def check(answer, case)` gives True or False, a score of 0
    to 1 (0.5 and more passes), or (either, "why").

    `case` is a dict: id, tags, messages, references, reasoning, finish_reason, seconds, tool_calls,
    args. It runs in a process of its own.
    """

    kind: Literal["python"]
    function: str = Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")
    """`path.py:name`, relative to the suite's folder or the project."""
    args: dict[str, Any] = Field(default_factory=dict)
    timeout: float = Field(default=10.0, gt=0, le=600)
    """Seconds for one answer."""


class All(Demand):
    """All of these hold."""

    kind: Literal["all"]
    of: list[Assertion] = Field(min_length=1)


class AnyOf(Demand):
    """At least one of these holds."""

    kind: Literal["any"]
    of: list[Assertion] = Field(min_length=1)


class AtLeast(Demand):
    """At least `count` of these hold."""

    kind: Literal["at_least"]
    count: int = Field(ge=1)
    of: list[Assertion] = Field(min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> AtLeast:
        if self.count > len(self.of):
            raise ValueError(f"`count` is {self.count}, but there are {len(self.of)}")
        return self


Assertion = Annotated[
    Exact
    | Contains
    | ContainsAny
    | ContainsAll
    | NotContains
    | Regex
    | Json
    | JsonSchema
    | Number
    | Choice
    | Length
    | MaxChars
    | MinChars
    | InLanguage
    | Refusal
    | NoPii
    | NoSecrets
    | ToolCall
    | Similarity
    | MetricBound
    | BertScoreBound
    | Latency
    | FinishReason
    | Python
    | All
    | AnyOf
    | AtLeast,
    Field(discriminator="kind"),
]
"""One demand; `kind` says which."""

KINDS: tuple[type[Demand], ...] = (
    *(Exact, Contains, ContainsAny, ContainsAll, NotContains, Regex, Json, JsonSchema, Number),
    *(Choice, Length, MaxChars, MinChars, InLanguage, Refusal, NoPii, NoSecrets, ToolCall),
    *(Similarity, MetricBound, BertScoreBound, Latency, FinishReason, Python, All, AnyOf, AtLeast),
)
"""The classes of the union, in the order of the documentation."""

for _group in (All, AnyOf, AtLeast):
    _group.model_rebuild()


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


def needs_reference(assertion: Assertion) -> bool:
    """Whether it can be evaluated only where the case has a reference."""
    match assertion:
        case Exact(value=None) | Similarity(value=None) | BertScoreBound():
            return True
        case MetricBound(name=name):
            return PER_ANSWER[name].needs_reference
        case All(of=members) | AnyOf(of=members) | AtLeast(of=members):
            return any(map(needs_reference, members))
    return False


def run_apart_of(assertion: Assertion) -> list[Python | BertScoreBound]:
    """What of it runs in a process of its own, in groups too."""
    match assertion:
        case Python() | BertScoreBound():
            return [assertion]
        case All(of=members) | AnyOf(of=members) | AtLeast(of=members):
            return [found for member in members for found in run_apart_of(member)]
    return []


def _require_bounds(kind: str, low: float | None, high: float | None) -> None:
    if low is None and high is None:
        raise ValueError(f"`{kind}` needs `min` or `max`")
    if low is not None and high is not None and low > high:
        raise ValueError(f"`min` {low:g} is above `max` {high:g}")
