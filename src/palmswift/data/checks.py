"""A shaped row to a canonical conversation: structure and text are checked, repairs are noted."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Literal

from palmswift.data.row import Conversation, Message, Role, RowError, SourceRow
from palmswift.data.shapes import Turn, shape_row
from palmswift.recipes.recipe import DataSettings

ROLES: dict[str, Role | Literal["tool"]] = {
    **dict.fromkeys(("system", "developer", "系统"), "system"),
    **dict.fromkeys(("user", "human", "用户", "客户", "问"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "ai"), "assistant"),
    **dict.fromkeys(("助手", "客服", "答"), "assistant"),
    **dict.fromkeys(("tool", "tool_call", "tool_response", "function"), "tool"),
    **dict.fromkeys(("function_call", "function_response", "observation"), "tool"),
}
"""Every role name that is understood, in lower case, to its canonical role."""

_CONTROL_TOKEN = re.compile(r"<[|｜][A-Za-z][\w▁ ]{0,40}[|｜]>")
_PLACEHOLDER = re.compile(r"\{\{ROUND[01]\}\}")
# NUL, lone surrogates (undecodable bytes among them), and the mark of a lost character
_INVALID = re.compile("[\x00\ud800-\udfff\ufffd]")
_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}([ T]\d{2}(:?\d{2}(:?\d{2}(\.\d+)?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"
)


def to_conversation(row: SourceRow, settings: DataSettings) -> Conversation:
    """The canonical conversation that a row is.

    RowError, with its reason code, for a row that would not train as its author meant.
    """
    shaped = shape_row(row.fields, settings.columns)
    changes = set(shaped.changes)
    messages = [_message(turn, number, changes) for number, turn in enumerate(shaped.turns, 1)]
    if not messages:
        raise RowError("no_messages", f"the {shaped.shape} row has no turns")
    messages = _with_system(messages, settings.system, changes)
    _check_order([message.role for message in messages])
    for number, message in enumerate(messages, 1):
        _check_text(message, number)
    if all(_TIMESTAMP.fullmatch(message.content) for message in messages):
        raise RowError("only_timestamps", messages[-1].content)
    return Conversation(
        row.place, shaped.shape, tuple(messages), frozenset(changes), source=row.fields
    )


def _message(turn: Turn, number: int, changes: set[str]) -> Message:
    role = _role(turn, number, changes)
    text = _text(turn.content, role, number, changes)
    stripped = text.strip()
    if stripped != text:
        changes.add("whitespace_stripped")
    return Message(role, stripped)


def _role(turn: Turn, number: int, changes: set[str]) -> Role:
    if not isinstance(turn.role, str):
        raise RowError("unknown_role", f"turn {number} has the role {turn.role!r}")
    role = ROLES.get(turn.role.strip().casefold())
    if role is None:
        raise RowError("unknown_role", f"turn {number} has the role `{turn.role}`")
    if role == "tool":
        raise RowError("tool_role", f"turn {number} has the role `{turn.role}`")
    if role != turn.role:
        changes.add("role_renamed")
    return role


def _text(content: Any, role: Role, number: int, changes: set[str]) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        if role == "system":
            return ""
        code = "no_answer" if role == "assistant" else "no_question"
        raise RowError(code, f"the content of turn {number} is null")
    if isinstance(content, list) and content:
        parts = [part.get("text") if _is_text_part(part) else None for part in content]
        if all(isinstance(part, str) for part in parts):
            changes.add("text_parts_joined")
            return "".join(str(part) for part in parts)
    raise RowError("non_text_content", f"turn {number}: {content!r}")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text"


def _with_system(messages: list[Message], default: str | None, changes: set[str]) -> list[Message]:
    """The messages without a blank system prompt, and with the default one if there is none."""
    if messages[0].role == "system" and not messages[0].content:
        changes.add("blank_system_dropped")
        messages = messages[1:]
    system = (default or "").strip()
    if system and not any(message.role == "system" for message in messages):
        changes.add("system_added")
        messages = [Message("system", system), *messages]
    return messages


def _check_order(roles: list[Role]) -> None:
    turns = roles[1:] if roles and roles[0] == "system" else roles
    if "system" in turns:
        raise RowError("system_not_first", f"the roles are {', '.join(roles)}")
    if "assistant" not in turns:
        raise RowError("no_answer", f"the roles are {', '.join(roles) or 'none'}")
    if turns[0] != "user":
        raise RowError("first_turn_not_user", f"the roles are {', '.join(roles)}")
    for number, (before, after) in enumerate(pairwise(turns), 1):
        if before == after:
            raise RowError("two_turns_in_a_row", f"turns {number} and {number + 1} are {after}")
    if turns[-1] != "assistant":
        raise RowError("last_turn_not_assistant", f"the roles are {', '.join(roles)}")


def _check_text(message: Message, number: int) -> None:
    text = message.content
    if _INVALID.search(text):
        raise RowError("invalid_characters", f"turn {number}")
    if found := _CONTROL_TOKEN.search(text):
        raise RowError("control_tokens", f"turn {number} has {found.group()}")
    if message.role != "assistant" and (found := _PLACEHOLDER.search(text)):
        raise RowError("placeholder", f"turn {number} has {found.group()}")
    if not text:
        code = "blank_answer" if message.role == "assistant" else "blank_question"
        raise RowError(code, f"turn {number}")
    if message.role == "assistant":
        _check_think(text, number)


def _check_think(text: str, number: int) -> None:
    opened, closed = text.count("<think>"), text.count("</think>")
    if not opened and not closed:
        return
    if opened != closed or text.find("</think>") < text.find("<think>"):
        raise RowError("unclosed_think", f"turn {number}: {opened} opened, {closed} closed")
    if opened > 1 or not text.startswith("<think>"):
        raise RowError("misplaced_think", f"turn {number}: {opened} think blocks")
    if not text.partition("</think>")[2].strip():
        raise RowError("think_only_answer", f"turn {number}")
