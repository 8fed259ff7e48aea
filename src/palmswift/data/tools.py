"""Tools, tool calls and tool responses, in the forms that ms-swift's agent templates read.

A tool call is a message of its own whose content is `{"name", "arguments"}` as JSON text, several
in a row are calls in parallel; `tools` is the JSON text of a list (swift/agent_template/base.py).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from palmswift.data.columns import blank, kind_name
from palmswift.data.row import RowError


def tools_text(value: Any) -> str | None:
    """The list of tools as JSON text; None where there are none. RowError: not of a known form."""
    if blank(value):
        return None
    tools = parse(value) if isinstance(value, str) else value
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list):
        raise RowError("broken_tool_call", f"`tools` is {kind_name(tools)}, not a list")
    tools = [parse(tool) if isinstance(tool, str) else tool for tool in tools]
    for number, tool in enumerate(tools, 1):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise RowError("broken_tool_call", f"tool {number} has no name")
    return _text(tools) if tools else None


def call_texts(content: Any, number: int) -> list[str]:
    """The calls that the content of a tool call turn holds, each as JSON text.

    RowError: it is not a call, or a list of calls, with a name and arguments.
    """
    calls = parse(content) if isinstance(content, str) else content
    calls = calls if isinstance(calls, list) else [calls]
    if not calls:
        raise RowError("broken_tool_call", f"turn {number} has no tool call")
    return [_call_text(call, number) for call in calls]


def response_text(content: Any) -> str:
    """What a tool answered, as text."""
    if isinstance(content, str):
        return content
    return "" if content is None else _text(content)


def sorted_responses(
    calls: Sequence[Mapping[str, Any]], responses: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The responses in the order of the calls, if their ids tell it.

    ms-swift matches responses to calls by position, and sorts in the same way
    (swift/template/template_inputs.py: normalize_openai_tool_calls).
    """
    order = {str(call.get("id")): position for position, call in enumerate(calls)}
    ids = [str(response.get("tool_call_id")) for response in responses]
    if len(order) != len(calls) or sorted(ids) != sorted(order):
        return list(responses)
    return sorted(responses, key=lambda response: order[str(response.get("tool_call_id"))])


def parse(text: str) -> Any:
    """What JSON text or a Python literal says; the text itself where it is neither."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _call_text(call: Any, number: int) -> str:
    if isinstance(call, dict) and isinstance(call.get("function"), dict):
        call = call["function"]
    name = call.get("name") if isinstance(call, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise RowError("broken_tool_call", f"turn {number} has a tool call without a name")
    arguments = call.get("arguments", call.get("parameters", call.get("input")))
    if blank(arguments):
        arguments = {}
    if isinstance(arguments, str):
        arguments = parse(arguments)
    if not isinstance(arguments, dict):
        detail = f"turn {number}: the arguments of `{name}` are {kind_name(arguments)}"
        raise RowError("broken_tool_call", detail)
    return _text({"name": name, "arguments": arguments})


def _text(document: Any) -> str:
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise RowError("broken_tool_call", "it holds what JSON has no form for") from None
