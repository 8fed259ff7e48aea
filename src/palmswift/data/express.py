"""Writes a canonical row in the other shapes that ms-swift, LLaMA-Factory and people use.

The answer that is not preferred, the label and the tools keep ms-swift's own names
(`rejected_response`, `label`, `tools`) in every shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from palmswift.data.row import Kind, Message, TrainingRow

Target = Literal["messages", "sharegpt", "alpaca", "query_response", "chatml", "csv"]

_CSV_COLUMNS = ("query", "response", "system", "history")
_CSV_BESIDE: dict[Kind, tuple[str, ...]] = {
    "dpo": ("rejected_response",),
    "kto": ("label",),
    "grpo": ("solution",),
}

_SHAREGPT = {
    "user": "human",
    "assistant": "gpt",
    "tool_call": "function_call",
    "tool_response": "observation",
}
_CHATML = ("<|im_start|>", "<|im_end|>")


class NotExpressible(Exception):
    """The shape has no place for what the row says; the text says what."""


def express(row: TrainingRow, target: Target) -> dict[str, Any]:
    """The row as an object of the shape `target`; NotExpressible when something would be lost."""
    return _WRITERS[target](row)


def csv_columns(kind: Kind) -> tuple[str, ...]:
    """The columns of a CSV file; the cells that a row has nothing for stay empty."""
    return _CSV_COLUMNS + _CSV_BESIDE.get(kind, ())


def chatml_text(row: TrainingRow) -> str:
    """The dialogue as ChatML; NotExpressible when it is more than turns of text."""
    _turns_of_text(row)
    if beside := _beside(row):
        raise NotExpressible(f"there is no place for {', '.join(beside)}")
    for message in row.messages:
        if any(token in message.content for token in _CHATML):
            raise NotExpressible(f"{_CHATML[0]} or {_CHATML[1]} stands in a text")
    return "\n".join(f"{_CHATML[0]}{role}\n{content}{_CHATML[1]}" for role, content in row.messages)


def text_block(row: TrainingRow) -> str:
    """The dialogue as ChatML and a line that ends it, for a text file; NotExpressible as above."""
    text = chatml_text(row)
    if "\r" in text:
        raise NotExpressible("a carriage return stands in a text")
    return f"{text}\n---\n"


def _messages(row: TrainingRow) -> dict[str, Any]:
    return row.as_row()


def _chatml(row: TrainingRow) -> dict[str, Any]:
    return {"text": chatml_text(row)}


def _sharegpt(row: TrainingRow) -> dict[str, Any]:
    system, turns = _asked(row)
    conversations = [{"from": _SHAREGPT[role], "value": content} for role, content in turns]
    return {"conversations": conversations, **_optional("system", system), **_beside(row)}


def _alpaca(row: TrainingRow) -> dict[str, Any]:
    system, history, query, response = _pairs(row)
    return {
        "instruction": query,
        "input": "",
        **_optional("output", response),
        **_optional("system", system),
        **_optional("history", history or None),
        **_beside(row),
    }


def _query_response(row: TrainingRow) -> dict[str, Any]:
    system, history, query, response = _pairs(row)
    return {
        "query": query,
        **_optional("response", response),
        **_optional("system", system),
        **_optional("history", history or None),
        **_beside(row),
    }


def _csv(row: TrainingRow) -> dict[str, Any]:
    cells = _query_response(row)
    if more := [*(row.extra.keys() - {"solution"}), *["tools"] * (row.tools is not None)]:
        raise NotExpressible(f"there is no column for {', '.join(sorted(more))}")
    if "history" in cells:
        cells["history"] = json.dumps(cells["history"], ensure_ascii=False)
    if row.label is not None:
        cells["label"] = "true" if row.label else "false"
    for name, cell in cells.items():
        if not isinstance(cell, str):
            raise NotExpressible(f"{name} is not text")
        if "\0" in cell:
            raise NotExpressible(f"{name} has a NUL character")
    return cells


_WRITERS: dict[Target, Callable[[TrainingRow], dict[str, Any]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "query_response": _query_response,
    "chatml": _chatml,
    "csv": _csv,
}
TARGETS: tuple[Target, ...] = tuple(_WRITERS)


def _pairs(row: TrainingRow) -> tuple[str | None, list[list[str]], str, str | None]:
    """System, earlier pairs of question and answer, last question, last answer (grpo: None)."""
    system, turns = _turns_of_text(row)
    texts = [turn.content for turn in turns]
    answered = len(texts) % 2 == 0
    response = texts.pop() if answered else None
    query = texts.pop()
    history = [[texts[i], texts[i + 1]] for i in range(0, len(texts), 2)]
    return system, history, query, response


def _asked(row: TrainingRow) -> tuple[str | None, Sequence[Message]]:
    """The system prompt, and the turns after it, which begin with a question."""
    messages = row.messages
    system = messages[0].content if messages[0].role == "system" else None
    turns = messages if system is None else messages[1:]
    if not turns or turns[0].role != "user":
        raise NotExpressible("there is no question")
    return system, turns


def _turns_of_text(row: TrainingRow) -> tuple[str | None, Sequence[Message]]:
    """As `_asked`, of a dialogue without tools."""
    if any(message.role in ("tool_call", "tool_response") for message in row.messages):
        raise NotExpressible("the dialogue has tool calls")
    return _asked(row)


def _beside(row: TrainingRow) -> dict[str, Any]:
    """What stands beside the messages."""
    return {name: value for name, value in row.as_row().items() if name != "messages"}


def _optional(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}
