"""The list of turns that a conversation column holds, in each of the forms it is found in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from palmswift.data import chatml, tools
from palmswift.data.columns import ASKER, QUERY, RESPONSE, blank, kind_name, listed
from palmswift.data.policy import Notes
from palmswift.data.row import Role, RowError

ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer", "系统"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(("用户", "客户", "顾客", "患者", "访客", "问"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "ai", "agent"), "assistant"),
    **dict.fromkeys(("助手", "助理", "客服", "医生", "机器人", "答"), "assistant"),
    **dict.fromkeys(("tool_call", "tool_calls", "function_call"), "tool_call"),
    **dict.fromkeys(("tool_response", "tool", "function", "function_response"), "tool_response"),
    **dict.fromkeys(("observation", "observations", "ipython"), "tool_response"),
}
"""Every role name that is understood, in lower case and with `_`, to its canonical role.

Those of ms-swift (swift/dataset/preprocessor/core.py) and of LLaMA-Factory's tags are among them.
"""

_UNSUPPORTED_KEYS = ("images", "image", "videos", "video", "audios", "audio")
_LOSS_KEYS = ("loss", "loss_scale", "weight")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_PAIR_KEYS = (("user", (*ASKER, *QUERY)), ("assistant", ("assistant", "gpt", "bot", *RESPONSE)))


class Turn(NamedTuple):
    """One turn as the row has it; role and content are not checked yet."""

    role: Any
    content: Any


Form = Literal["messages", "sharegpt", "pairs", "utterances", "chatml"]


class Turns(NamedTuple):
    """The turns of a conversation and the form they were found in."""

    form: Form
    turns: list[Turn]


def conversation(value: Any, notes: Notes) -> Turns:
    """The turns of a conversation column or of a row that is a list. RowError: not turns."""
    if chatml.is_chatml(value):
        notes.changes.add("chatml_parsed")
        return Turns("chatml", [Turn(*turn) for turn in chatml.turns_of(value)])
    if isinstance(value, str):
        value = tools.parse(value)
    if not isinstance(value, list):
        raise RowError("no_messages", f"the conversation is {kind_name(value)}, not a list")
    if value and all(isinstance(item, str) for item in value):
        # LCCC: what two people said by turns.
        roles = ("user", "assistant")
        turns = [Turn(roles[number % 2], text) for number, text in enumerate(value)]
        return Turns("utterances", turns)
    for number, item in enumerate(value, 1):
        if not isinstance(item, dict):
            raise RowError("broken_turn", f"turn {number} is {kind_name(item)}, not an object")
    return _objects(value, notes)


def answer(value: Any, notes: Notes) -> list[Turn]:
    """The turns that an answer column holds: text, one message, or a list of messages."""
    if isinstance(value, dict) and role_key(value) is not None:
        value = [value]
    if is_messages(value):
        return conversation(value, notes).turns
    return [Turn("assistant", value)]


def is_messages(value: Any) -> bool:
    """Whether a value is a list of objects with roles."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and role_key(item) is not None for item in value)
    )


def role_key(item: Mapping[str, Any]) -> str | None:
    """The key that holds a message's role; None if it has none."""
    return next((key for key in ("role", "from") if key in item), None)


def role_of(turn: Turn) -> Role | None:
    """The canonical role of a turn; None if it is not known."""
    if not isinstance(turn.role, str):
        return None
    known = ROLES.get(turn.role)
    return known or ROLES.get(turn.role.strip().casefold().replace("-", "_"))


def _objects(items: Sequence[Mapping[str, Any]], notes: Notes) -> Turns:
    form: Form = "messages"
    turns: list[Turn] = []
    items = list(items)
    for index, item in enumerate(items):
        if len(item) == 2 and "role" in item and "content" in item:
            if isinstance(item["content"], list):
                turns += _blocks(item["role"], item["content"], notes)
            else:
                turns.append(Turn(item["role"], item["content"]))
            continue
        key = role_key(item)
        if key is None:
            form = "pairs"
            turns += _pair(item, index + 1, notes)
            continue
        if key == "from":
            form = "sharegpt"
        if item.get("tool_calls"):
            _sort_responses(items, index)
        turns += _message(item, key, index + 1, notes)
    return Turns(form, turns)


def _message(item: Mapping[str, Any], key: str, number: int, notes: Notes) -> list[Turn]:
    role = role_of(Turn(item[key], None))
    _refuse_keys(item, role, number)
    contents = [name for name in ("content", "value") if name in item]
    if len(contents) > 1 or ("role" in item and "from" in item):
        raise RowError("ambiguous_columns", f"turn {number} has {listed(list(item))}")
    calls = _calls(item, number, notes) if role == "assistant" else []
    if not contents and not calls:
        raise RowError("broken_turn", f"turn {number} has no content")
    content = item[contents[0]] if contents else None
    reasoning = next((item[name] for name in _REASONING_KEYS if not blank(item.get(name))), None)
    read = {key, *contents, "tool_calls", "function_call", *_REASONING_KEYS}
    if any(name not in read and value is not None for name, value in item.items()):
        notes.changes.add("message_keys_dropped")
    if reasoning is not None:
        content = _with_reasoning(content, reasoning, number, notes)
    if calls and blank(content):
        return calls
    said = _blocks(item[key], content, notes) if isinstance(content, list) else []
    return [*(said or [Turn(item[key], content)]), *calls]


def _refuse_keys(item: Mapping[str, Any], role: Role | None, number: int) -> None:
    """RowError for keys that change what is trained in a way that a canonical row cannot."""
    for name in _UNSUPPORTED_KEYS:
        if not blank(item.get(name)):
            raise RowError("unsupported_message_key", f"turn {number} has `{name}`")
    # What ms-swift does without the key: train answers, and nothing else.
    usual = 1 if role in ("assistant", "tool_call") else 0
    for name in _LOSS_KEYS:
        value = item.get(name)
        if value is not None and value != usual:
            raise RowError("unsupported_message_key", f"turn {number} has `{name}`: {value!r}")


def _with_reasoning(content: Any, reasoning: Any, number: int, notes: Notes) -> str:
    """The answer behind its reasoning, as Qwen3's own chat template writes them."""
    said = "" if content is None else content
    if not isinstance(said, str) or not isinstance(reasoning, str):
        raise RowError("non_text_content", f"turn {number}: the reasoning or the answer")
    if "<think>" in said or "</think>" in said:
        raise RowError("ambiguous_columns", f"turn {number} has two reasonings")
    notes.changes.add("reasoning_joined")
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{said.strip()}"


def _calls(item: Mapping[str, Any], number: int, notes: Notes) -> list[Turn]:
    """The tool calls that an OpenAI message carries beside its content."""
    calls = item.get("tool_calls")
    if isinstance(calls, str):
        calls = tools.parse(calls)
    if blank(calls):
        calls = item.get("function_call")
    if blank(calls):
        return []
    notes.changes.add("tool_calls_rewritten")
    return [Turn("tool_call", text) for text in tools.call_texts(calls, number)]


def _sort_responses(items: list[Mapping[str, Any]], index: int) -> None:
    """Put the responses after the message at `index` into the order of its calls."""
    calls = items[index]["tool_calls"]
    end = index + 1
    while end < len(items) and items[end].get("role") in ("tool", "tool_response"):
        end += 1
    if isinstance(calls, list) and all(isinstance(call, dict) for call in calls):
        items[index + 1 : end] = tools.sorted_responses(calls, items[index + 1 : end])


def _blocks(role: Any, parts: list[Any], notes: Notes) -> list[Turn]:
    """Anthropic's content blocks, tool uses and results among them, as turns of their own."""
    kinds = {part.get("type") if isinstance(part, dict) else None for part in parts}
    if not kinds & {"tool_use", "tool_result"}:
        return [Turn(role, parts)]
    notes.changes.add("tool_calls_rewritten")
    turns: list[Turn] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "tool_use":
            turns.append(Turn("tool_call", part))
        elif kind == "tool_result":
            turns.append(Turn("tool_response", part.get("content")))
        elif kind == "text" and blank(part.get("text")):
            continue
        elif turns and turns[-1].role == role:
            turns[-1].content.append(part)
        else:
            turns.append(Turn(role, [part]))
    return turns


def _pair(item: Mapping[str, Any], number: int, notes: Notes) -> list[Turn]:
    """A question and its answer in one object, such as `{"human": …, "assistant": …}`."""
    found = [[name for name in names if name in item] for _, names in _PAIR_KEYS]
    if any(len(names) != 1 for names in found):
        raise RowError("broken_turn", f"turn {number} has no role")
    turns = [Turn(role, item[names[0]]) for (role, _), names in zip(_PAIR_KEYS, found, strict=True)]
    system = item.get("system")
    if not blank(system) and number == 1:
        turns.insert(0, Turn("system", system))
    read = {names[0] for names in found} | ({"system"} if number == 1 or blank(system) else set())
    if item.keys() - read:
        notes.changes.add("message_keys_dropped")
    return turns
