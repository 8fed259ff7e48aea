"""A row as the model sees it: pieces of text, each trained on or not."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Span(_Document):
    """Neighbouring tokens that are all trained on, or all not."""

    text: str
    """Their text, control tokens such as <|im_end|> included."""
    n_tokens: int = Field(ge=0)
    trained: bool
    """Whether the loss counts these tokens."""


class SampleRow(_Document):
    """One row of tokens that the template made, in order."""

    index: int = Field(ge=0)
    """Which of the rows handed to the template, from 0."""
    place: str = ""
    """`file:line` that the row was read from; empty while it is not known."""
    side: Literal["chosen", "rejected"] | None = None
    """Which answer of a preference pair these tokens hold; a pair makes two sample rows."""
    spans: list[Span]

    @property
    def n_tokens(self) -> int:
        """All tokens of the row."""
        return sum(span.n_tokens for span in self.spans)

    @property
    def n_trained(self) -> int:
        """Tokens that the loss counts."""
        return sum(span.n_tokens for span in self.spans if span.trained)
