"""The columns of one row, found by what they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palmswift.data.row import RowError
from palmswift.errors import InputError, Problem

Names = tuple[str, ...]
"""Column names in lower case."""

MESSAGES: Names = ("messages", "conversations", "conversation", "对话")
DIALOGUE: Names = ("dialogue", "dialog", "dialogs", "turns", "items", "chat", "会话")
QUERY: Names = ("query", "question", "prompt", "input", "instruction", "problem")
QUERY += ("问题", "提问", "问", "输入", "指令")
ASKER: Names = ("user", "human", "q", "用户", "客户")
RESPONSE: Names = ("response", "answer", "output", "completion", "target", "targets")
RESPONSE += ("solution", "answers", "answer_key", "reply", "答案", "回答", "回复", "答", "输出")
ANSWERER: Names = ("assistant", "gpt", "bot", "a", "客服", "助手", "text", "content")
SYSTEM: Names = ("system", "system_prompt", "系统提示")
HISTORY: Names = ("history", "历史")
TOOLS: Names = ("tools", "functions")
TEXT: Names = ("text", "content", "文本", "内容", "正文")
CHOSEN: Names = ("chosen", "chosen_response", "优选")
REJECTED: Names = ("rejected", "rejected_response", "rejected_messages", "拒绝", "劣选")
LABEL: Names = ("label", "kto_tag", "标签")
SOLUTION: Names = ("solution", "解答")
UNSUPPORTED: Names = ("image", "images", "video", "videos", "audio", "audios", "objects")
UNSUPPORTED += ("chat_template_kwargs",)
"""Columns that change what is trained and that canonical rows cannot carry."""

KNOWN: dict[str, tuple[Names, ...]] = {
    "query": (QUERY, ASKER),
    "response": (RESPONSE, ANSWERER),
    "system": (SYSTEM,),
    "history": (HISTORY,),
    "messages": (MESSAGES, DIALOGUE),
    "tools": (TOOLS,),
    "text": (TEXT,),
    "chosen": (CHOSEN,),
    "rejected": (REJECTED,),
    "label": (LABEL,),
    "solution": (SOLUTION,),
}
"""What a column can be for, to the names it may have; a later tuple counts if no name of an earlier
one is there."""

_CANONICAL = {"messages": "messages", "tools": "tools", "rejected": "rejected_response"}
_CANONICAL |= {"label": "label", "solution": "solution"}
"""The names of our own output, which are known even where `data.columns` gives another."""


def check_columns(mapping: Mapping[str, str]) -> None:
    """InputError with every key of `data.columns` that is no use of a column."""
    remedy = f"one of {', '.join(KNOWN)}"
    unknown = [
        Problem("a column cannot be used as this", f"data.columns.{name}", remedy)
        for name in mapping
        if name not in KNOWN
    ]
    if unknown:
        raise InputError("the columns cannot be used", unknown)


class Columns:
    """A row's columns, found by their names in any case or as `data.columns` maps them."""

    def __init__(self, fields: Mapping[str, Any], mapping: Mapping[str, str]) -> None:
        self.fields = fields
        self._mapping = mapping
        self._used: set[str] = set()
        self._named: dict[str, list[str]] = {}
        mapped = set(mapping.values()) if mapping else ()
        for name in fields:
            if name not in mapped:
                self._named.setdefault(name.strip().casefold(), []).append(name)

    def find(self, use: str, tiers: int = 2) -> list[str]:
        """The columns that could be for `use`: several only if several of them are filled.

        `tiers` is how many tuples of `KNOWN` are looked through.
        """
        if use in self._mapping:
            if self._mapping[use] in self.fields:
                return [self._mapping[use]]
            own = _CANONICAL.get(use, "")
            return [own] if own in self.fields and own in self._named else []
        named = self._named
        for names in KNOWN[use][:tiers]:
            found = [column for name in names if name in named for column in named[name]]
            if found:
                # A blank cell is no candidate beside a filled one, but what there is if alone.
                return [name for name in found if not blank(self.fields[name])] or found[:1]
        return []

    def filled(self, use: str) -> bool:
        """Whether a column for `use` has something in it."""
        return any(not blank(self.fields[name]) for name in self.find(use))

    def take(self, name: str) -> Any:
        """The value of a column, which then counts as used."""
        self._used.add(name)
        return self.fields[name]

    def one(self, use: str) -> Any:
        """The value of the only column for `use`; None without one. RowError: there are several."""
        found = self.find(use)
        if len(found) > 1:
            raise RowError("ambiguous_columns", f"{use} could be {listed(found)}")
        return self.take(found[0]) if found else None

    def left_over(self) -> dict[str, Any]:
        """The columns that were not taken and hold something."""
        return {
            name: value
            for name, value in self.fields.items()
            if name not in self._used and not blank(value)
        }

    def refuse_unsupported(self) -> None:
        """RowError for a filled column that canonical rows cannot carry."""
        for name in UNSUPPORTED:
            for column in self._named.get(name, ()):
                if not blank(self.fields[column]):
                    raise RowError("unsupported_column", f"`{column}`")


def blank(value: Any) -> bool:
    """Whether a value says nothing: null, blank text, an empty list or object."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or value == [] or value == {}


def listed(names: Sequence[str]) -> str:
    """Names for a message."""
    return ", ".join(f"`{name}`" for name in names[:12])


def kind_name(value: Any) -> str:
    """What JSON calls a value, for a message."""
    names = {str: "text", dict: "an object", list: "a list", type(None): "null", bool: "true/false"}
    return names.get(type(value), "a number")
