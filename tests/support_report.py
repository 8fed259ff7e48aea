"""Helpers of the data report's tests: opened files, rows told to a builder, sample rows."""

from __future__ import annotations

from typing import NamedTuple

from palmswift.data.report import DataReport, Use
from palmswift.data.row import Place, Rejection
from palmswift.data.sample import SampleRow, Span
from palmswift.data.tally import ReportBuilder
from palmswift.data.template import TemplateFacts
from palmswift.recipes.recipe import DataSettings


class OpenedFile(NamedTuple):
    """What the builder asks of a file."""

    source: str
    format: str = "jsonl"
    encoding: str = "utf-8"
    notes: tuple[str, ...] = ()


def facts(max_length: int | None = 640) -> TemplateFacts:
    """A template's settings."""
    return TemplateFacts(
        template="qwen3",
        max_length=max_length,
        truncation_strategy="delete",
        loss_scale="default",
        swift_version="4.6.0",
    )


def builder_of(*sources: str, rules: dict[str, str] | None = None) -> ReportBuilder:
    """A builder for training files."""
    files: list[tuple[OpenedFile, Use]] = [(OpenedFile(source), "train") for source in sources]
    return ReportBuilder(files, DataSettings(rules=rules or {}), "sft")


def report_of(
    *,
    tokens: list[int] | None = None,
    val_rows: int = 0,
    rejected: list[str] | None = None,
    findings: list[str] | None = None,
    max_length: int | None = 640,
    over_length: list[int] | None = None,
    rules: dict[str, str] | None = None,
) -> DataReport:
    """A report on `f.jsonl`: rows of `tokens` tokens, the last `val_rows` of them held out."""
    builder = builder_of("f.jsonl", rules=rules)
    numbers = iter(range(1, 1_000_000))
    lengths = tokens or []
    for index, length in enumerate(lengths):
        number = next(numbers)
        found = findings if index == 0 and findings else ()
        builder.kept(Place("f.jsonl", number, number), "messages", findings=found, line="{}")
        held = index >= len(lengths) - val_rows
        builder.wrote("val" if held else "train", length, length // 2)
    for code in rejected or []:
        number = next(numbers)
        builder.rejected(Rejection(Place("f.jsonl", number, number), code, "so it is", {"a": 1}))
    for length in over_length or []:
        number = next(numbers)
        place = Place("f.jsonl", number, number)
        builder.rejected(Rejection(place, "over_length", "too long", {}), tokens=length)
    return builder.finish(template=facts(max_length))


def sample_of(prompt: str, answer: str) -> SampleRow:
    """A sample row: a prompt that is read, an answer that is trained on."""
    return SampleRow(
        index=0,
        place="f.jsonl:1",
        spans=[
            Span(text=prompt, n_tokens=max(1, len(prompt)), trained=False),
            Span(text=answer, n_tokens=max(1, len(answer)), trained=True),
        ],
    )
