"""The prompts by which a server is compared with the training: a run's own, and the edge cases."""

from __future__ import annotations

from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict

from palmswift.files import read_jsonl
from palmswift.launchers.run_folder import RunFolder

_EDGES: tuple[tuple[str, list[dict[str, str]]], ...] = (
    ("english", [{"role": "user", "content": "What can you help me with?"}]),
    ("chinese", [{"role": "user", "content": "请问你能帮我做什么？"}]),
    (
        "system",
        [
            {"role": "system", "content": "Answer in one short sentence."},
            {"role": "user", "content": "你好，hello"},
        ],
    ),
    (
        "three turns",
        [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "Hello, how can I help?"},
            {"role": "user", "content": "谢谢"},
            {"role": "assistant", "content": "不客气。"},
            {"role": "user", "content": "one more question"},
        ],
    ),
    # What a template may strip or a tokenizer may cut otherwise.
    ("spaces and signs", [{"role": "user", "content": "\n  a\tb  … 🙂 ①ﬀ e\u0301 \u3000\n"}]),
    ("braces", [{"role": "user", "content": 'if (x < 1) { print("{{ y }}") } # 100%'}]),
    ("long", [{"role": "user", "content": "one two three 四五六 " * 8}]),
)


class Prompt(BaseModel):
    """One conversation that ends with what the user says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    messages: list[dict[str, str]]


def prompts_of(run: RunFolder, most: int) -> list[Prompt]:
    """At most `most` prompts of the run's rows, half of them held out, and the edge cases.

    Rows with tools or media are left out: the comparison is of text.
    """
    held_out = _of_file(run, "val", most // 2)
    rows = held_out + _of_file(run, "train", most - len(held_out))
    return [*rows, *(Prompt(name=name, messages=edge) for name, edge in _EDGES)]


def _of_file(run: RunFolder, name: str, most: int) -> list[Prompt]:
    """The first different prompts of one of the run's data files."""
    file = run.data / f"{name}.jsonl"
    found: dict[str, Prompt] = {}
    for number, row in enumerate(islice(read_jsonl(file), 10 * most) if file.is_file() else (), 1):
        messages = _asked(row)
        if messages and len(found) < most:
            found.setdefault(str(messages), Prompt(name=f"{name} {number}", messages=messages))
    return [*found.values()]


def _asked(row: Any) -> list[dict[str, str]] | None:
    """The row's conversation up to its last question; None for one that is not plain text."""
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list) or row.get("tools"):
        return None
    messages = [*row["messages"]]
    while messages and messages[-1].get("role") != "user":
        messages.pop()
    plain = all(set(m) <= {"role", "content"} and isinstance(m["content"], str) for m in messages)
    known = {message.get("role") for message in messages} <= {"system", "user", "assistant"}
    return messages if messages and plain and known else None
