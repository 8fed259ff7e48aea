"""The shape of a row, recognised per row: what its columns say, as turns in their order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from palmswift.data.row import RowError

CONVERSATION = ("messages", "conversations", "conversation", "对话")
QUERY = ("query", "question", "prompt", "input", "instruction", "problem", "问题", "提问", "问")
RESPONSE: tuple[str, ...] = ("response", "answer", "output", "completion", "target", "solution")
RESPONSE += ("答案", "回答", "回复", "答")
SYSTEM = ("system", "system_prompt", "系统提示")
HISTORY = ("history",)
UNSUPPORTED: tuple[str, ...] = (
    "tools",
    "image",
    "images",
    "video",
    "videos",
    "audio",
    "audios",
    "objects",
)
UNSUPPORTED += ("chosen", "rejected", "rejected_response", "rejected_messages")
"""Columns that change what is trained and that canonical rows cannot carry."""

COLUMN_ROLES = ("query", "response", "system", "history", "messages")
"""What `DataSettings.columns` can name a column for."""

_ROLE_KEYS = ("role", "from")
_CONTENT_KEYS = ("content", "value")
_UNSUPPORTED_KEYS: tuple[str, ...] = (
    "tool_calls",
    "function_call",
    "reasoning_content",
    "loss",
    "loss_scale",
)
_UNSUPPORTED_KEYS += ("weight", "images", "audio")
_PAIR_KEYS = {"user": ("human", "user"), "assistant": ("assistant", "gpt", "bot")}


@dataclass(frozen=True)
class Turn:
    """One turn as the row has it; role and content are not checked yet."""

    role: Any
    content: Any


@dataclass
class Shaped:
    """A row's turns, the shape they were found in, and what was left out on the way."""

    shape: str
    turns: list[Turn]
    changes: set[str] = field(default_factory=set)


class _Columns:
    """A row's columns that hold something, found by their names in any case."""

    def __init__(self, fields: Mapping[str, Any], mapping: Mapping[str, str]) -> None:
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self._mapping = mapping
        self._used: set[str] = set()

    def find(self, role: str, names: Sequence[str]) -> list[str]:
        """The columns that could be `role`: the mapped one, else those with a known name."""
        if role in self._mapping:
            column = self._mapping[role]
            return [column] if column in self._fields else []
        mapped = set(self._mapping.values())
        found = [
            name for name in self._fields if name not in mapped and name.strip().casefold() in names
        ]
        # A blank cell is no candidate beside a filled one, but it is what there is if alone.
        return [name for name in found if not _blank(self._fields[name])] or found[:1]

    def take(self, name: str) -> Any:
        """The value of a column, which then counts as used."""
        self._used.add(name)
        return self._fields[name]

    def one(self, role: str, names: Sequence[str]) -> Any:
        """The value of the only column that is `role`; None without one."""
        found = self.find(role, names)
        if len(found) > 1:
            raise RowError("ambiguous_columns", f"{role} could be {_listed(found)}")
        return self.take(found[0]) if found else None

    def left_over(self) -> bool:
        """Whether a filled column was not taken."""
        return any(
            name not in self._used and not _blank(value) for name, value in self._fields.items()
        )

    def refuse_unsupported(self) -> None:
        for name, value in self._fields.items():
            if name.strip().casefold() in UNSUPPORTED and not _blank(value):
                raise RowError("unsupported_column", f"`{name}`")


def shape_row(fields: Mapping[str, Any], columns: Mapping[str, str]) -> Shaped:
    """The turns of a row, system first if a column holds one.

    `columns` is `DataSettings.columns`. RowError: no known shape, or more than one reading.
    """
    row = _Columns(fields, columns)
    row.refuse_unsupported()
    system = row.one("system", SYSTEM)
    conversation = row.one("messages", CONVERSATION)
    paired = row.find("query", QUERY) or row.find("response", RESPONSE)
    if conversation is None or (_blank(conversation) and paired):
        shaped = _pair(row, fields)
    elif not _blank(row.one("history", HISTORY)):
        raise RowError("ambiguous_columns", "the row has a conversation and a history")
    else:
        shaped = _conversation(conversation)
    if system is not None:
        _put_system(shaped, system)
    if row.left_over():
        shaped.changes.add("columns_dropped")
    return shaped


def _put_system(shaped: Shaped, system: Any) -> None:
    first = shaped.turns[0] if shaped.turns else None
    if first is None or first.role != "system":
        shaped.turns.insert(0, Turn("system", system))
    elif first.content != system and not _blank(system):
        raise RowError("ambiguous_columns", "the system column and the system turn differ")


def _pair(row: _Columns, fields: Mapping[str, Any]) -> Shaped:
    question = row.find("query", QUERY)
    answer = row.find("response", RESPONSE)
    shape = "query_response"
    if len(answer) > 1:
        raise RowError("ambiguous_columns", f"response could be {_listed(answer)}")
    by_name = {name.strip().casefold(): name for name in question}
    if sorted(by_name) == ["input", "instruction"] and len(question) == 2:
        parts = [row.take(by_name["instruction"]), row.take(by_name["input"])]
        if not all(isinstance(part, str) for part in parts):
            raise RowError("non_text_content", "instruction or input is not text")
        asked: Any = "\n".join(parts)
        shape = "alpaca"
    elif len(question) > 1:
        raise RowError("ambiguous_columns", f"query could be {_listed(question)}")
    else:
        asked = row.take(question[0]) if question else None
        shape = "alpaca" if "instruction" in by_name else shape
    answered = row.take(answer[0]) if answer else None
    history = row.one("history", HISTORY)
    if not question and not answer:
        raise RowError("unknown_shape", f"columns: {_listed(list(fields)) or 'none'}")
    if not question:
        raise RowError("no_question", f"columns: {_listed(list(fields))}")
    turns = _history(history)
    turns.append(Turn("user", asked))
    if answered is not None:
        turns.append(Turn("assistant", answered))
    return Shaped(shape, turns)


def _history(value: Any) -> list[Turn]:
    value = _parsed(value)
    if _blank(value):
        return []
    if not isinstance(value, list):
        raise RowError("broken_history", f"it is {_kind(value)}")
    turns = []
    for number, pair in enumerate(value, 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("broken_history", f"pair {number} is not [question, answer]")
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return turns


def _conversation(value: Any) -> Shaped:
    value = _parsed(value)
    if not isinstance(value, list):
        raise RowError("no_messages", f"the conversation is {_kind(value)}, not a list")
    shaped = Shaped("messages", [])
    for number, item in enumerate(value, 1):
        if not isinstance(item, dict):
            raise RowError("broken_turn", f"turn {number} is {_kind(item)}, not an object")
        _add_turn(shaped, item, number)
    return shaped


def _add_turn(shaped: Shaped, item: Mapping[str, Any], number: int) -> None:
    unsupported = [key for key in _UNSUPPORTED_KEYS if not _blank(item.get(key))]
    if unsupported:
        raise RowError("unsupported_message_key", f"turn {number} has `{unsupported[0]}`")
    role_keys = [key for key in _ROLE_KEYS if key in item]
    content_keys = [key for key in _CONTENT_KEYS if key in item]
    if len(role_keys) > 1 or len(content_keys) > 1:
        raise RowError("ambiguous_columns", f"turn {number} has {_listed(list(item))}")
    if not role_keys:
        _add_pair(shaped, item, number)
        return
    if not content_keys:
        raise RowError("broken_turn", f"turn {number} has no content")
    if role_keys == ["from"]:
        shaped.shape = "sharegpt"
    if len(item) > 2:
        shaped.changes.add("message_keys_dropped")
    shaped.turns.append(Turn(item[role_keys[0]], item[content_keys[0]]))


def _add_pair(shaped: Shaped, item: Mapping[str, Any], number: int) -> None:
    """A turn pair such as `{"human": ..., "assistant": ...}`."""
    found = {role: [name for name in names if name in item] for role, names in _PAIR_KEYS.items()}
    if any(len(names) != 1 for names in found.values()):
        raise RowError("broken_turn", f"turn {number} has no role")
    if len(item) > 2:
        shaped.changes.add("message_keys_dropped")
    shaped.shape = "pairs"
    shaped.turns += [Turn(role, item[names[0]]) for role, names in found.items()]


def _parsed(value: Any) -> Any:
    """A list that a CSV cell or a JSON string holds as text."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _blank(value: Any) -> bool:
    return value in (None, [], {}) or (isinstance(value, str) and not value.strip())


def _kind(value: Any) -> str:
    names = {str: "text", dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value), "a number")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:12])
