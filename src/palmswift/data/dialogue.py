"""The turns of a dialogue as canonical messages in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from palmswift.data import tools
from palmswift.data.conversation import Turn, role_of
from palmswift.data.policy import Notes
from palmswift.data.row import Kind, Message, Role, RowError

MERGED_BY = "\n"
"""Stands between turns of one side that are merged, as lines do in a chat window."""

_ANSWERS = ("assistant", "tool_call")
_MAY_FOLLOW: dict[Role, tuple[Role, ...]] = {
    "user": ("assistant", "tool_call"),
    "assistant": ("user", "tool_call"),
    "tool_call": ("tool_call", "tool_response"),
    "tool_response": ("tool_response", "assistant", "tool_call"),
}


def messages_of(turns: Sequence[Turn], notes: Notes) -> list[Message]:
    """The turns with canonical roles and text. RowError: a role or a content is not understood."""
    messages: list[Message] = []
    for number, turn in enumerate(turns, 1):
        role = role_of(turn)
        if role is None:
            raise RowError("unknown_role", f"turn {number} has the role {turn.role!r}")
        if role != turn.role:
            notes.changes.add("role_renamed")
        if role == "tool_call":
            texts = tools.call_texts(turn.content, number)
            if texts != [turn.content]:
                notes.changes.add("tool_calls_rewritten")
            messages += [Message(role, text) for text in texts]
        else:
            messages.append(Message(role, _text(turn.content, role, number, notes)))
    return messages


def _text(content: Any, role: Role, number: int, notes: Notes) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        parts = [part.get("text") if _is_text_part(part) else None for part in content]
        if all(isinstance(part, str) for part in parts):
            notes.changes.add("text_parts_joined")
            return "".join(str(part) for part in parts)
    if role == "tool_response":
        return tools.response_text(content)
    if content is None and role == "system":
        return ""
    if content is None:
        code = "no_answer" if role == "assistant" else "no_question"
        raise RowError(code, f"the content of turn {number} is null")
    raise RowError("non_text_content", f"turn {number}: {content!r}")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text"


def ordered(messages: list[Message], kind: Kind, notes: Notes) -> list[Message]:
    """The messages in an order that trains: repaired as the rules say, RowError otherwise.

    For grpo the last one is a question, otherwise an answer or a tool call.
    """
    if not messages:
        raise RowError("no_messages", "the row has no turns")
    start = 1 if messages[0].role == "system" else 0
    system, turns = messages[:start], messages[start:]
    roles = [message.role for message in turns]
    if _is_plain(roles) and kind != "grpo":
        return messages
    told = f"the roles are {', '.join(message.role for message in messages[:20])}"
    if "system" in roles:
        raise RowError("system_not_first", told)
    if kind != "grpo" and not any(role in _ANSWERS for role in roles):
        raise RowError("no_answer", told)
    if "user" not in roles and kind == "grpo":
        raise RowError("no_question", told)
    turns = _from_question(turns, told, notes)
    if kind != "grpo":
        turns = _to_answer(turns, told, notes)
    turns = _merged(turns, told, notes)
    if kind == "grpo" and turns[-1].role != "user":
        raise RowError("no_question", f"{told}: the last is no question")
    return [*system, *turns]


def _is_plain(roles: Sequence[Role]) -> bool:
    """Whether question and answer alternate, which is so in almost all rows."""
    half = len(roles) // 2
    return half > 0 and list(roles) == ["user", "assistant"] * half


def _from_question(turns: list[Message], told: str, notes: Notes) -> list[Message]:
    first = next((index for index, turn in enumerate(turns) if turn.role == "user"), None)
    if first == 0 or notes.found("first_turn_not_user", told) != "drop":
        return turns
    if first is None:
        raise RowError("no_question", told)
    notes.changes.add("first_turns_dropped")
    return turns[first:]


def _to_answer(turns: list[Message], told: str, notes: Notes) -> list[Message]:
    last = len(turns)
    while last and turns[last - 1].role not in _ANSWERS:
        last -= 1
    if last == len(turns) or notes.found("last_turn_not_assistant", told) != "drop":
        return turns
    if last == 0:
        raise RowError("no_answer", told)
    notes.changes.add("last_turn_dropped")
    return turns[:last]


def _merged(turns: list[Message], told: str, notes: Notes) -> list[Message]:
    merged = turns[:1]
    for number, turn in enumerate(turns[1:], 2):
        before = merged[-1]
        if turn.role in _MAY_FOLLOW[before.role]:
            merged.append(turn)
        elif turn.role != before.role:
            raise RowError(
                "tool_order", f"turn {number} is {turn.role} after {before.role}: {told}"
            )
        elif notes.found("two_turns_in_a_row", f"turn {number}: {told}") == "merge":
            notes.changes.add("turns_merged")
            said = [text for text in (before.content, turn.content) if text.strip()]
            merged[-1] = Message(turn.role, MERGED_BY.join(said))
    return merged
