"""Turns with more than role and content: tool calls, reasoning, loss, content blocks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support_rows import A, U, canonical, refused, said, turns

CALL = '{"name": "hours", "arguments": {"day": "周日"}}'
TOOL = {"name": "hours", "description": "opening hours", "parameters": {"type": "object"}}
CALLED = [U, ("tool_call", CALL), ("tool_response", "8:00"), A]


def openai_call(arguments: Any, call_id: str = "c1") -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": "hours", "arguments": arguments},
    }


@pytest.mark.parametrize(
    "row",
    [
        turns(*CALLED),
        turns(U, ("function_call", json.loads(CALL)), ("observation", "8:00"), A),
        turns(U, ("tool-call", [json.loads(CALL)]), ("tool", "8:00"), A),
        turns(
            U,
            ("tool_call", "{'name': 'hours', 'parameters': {'day': '周日'}}"),
            ("tool", "8:00"),
            A,
        ),
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": CALL},
                {"from": "observation", "value": "8:00"},
                {"from": "gpt", "value": "a"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [openai_call('{"day": "周日"}')],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "8:00"},
                {"role": "assistant", "content": "a", "tool_calls": None},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "content": "",
                    "function_call": {"name": "hours", "arguments": '{"day": "周日"}'},
                },
                {"role": "function", "name": "hours", "content": "8:00"},
                {"role": "assistant", "content": "a"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": ""},
                        {"type": "tool_use", "id": "1", "name": "hours", "input": {"day": "周日"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "content": [{"type": "text", "text": "8:00"}],
                        }
                    ],
                },
                {"role": "assistant", "content": "a"},
            ]
        },
    ],
)
def test_every_form_of_a_tool_call_becomes_the_form_of_ms_swift(row: Any) -> None:
    assert said(row) == CALLED


def test_calls_in_parallel_keep_their_order_and_take_their_responses_along() -> None:
    row: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": "q"},
            {
                "role": "assistant",
                "content": "let me see",
                "tool_calls": [openai_call({"n": 1}, "c1"), openai_call({"n": 2}, "c2")],
            },
            {"role": "tool", "tool_call_id": "c2", "content": "two"},
            {"role": "tool", "tool_call_id": "c1", "content": {"n": "one"}},
            {"role": "assistant", "content": "a"},
        ]
    }
    roles = ["user", "assistant", "tool_call", "tool_call", "tool_response", "tool_response"]
    assert [role for role, _ in said(row)] == [*roles, "assistant"]
    assert [text for _, text in said(row)][4:6] == ['{"n": "one"}', "two"]
    row["messages"][3]["tool_call_id"] = "c9"
    assert [text for _, text in said(row)][4:6] == ["two", '{"n": "one"}']


def test_a_row_may_end_with_a_call() -> None:
    assert said(turns(U, ("tool_call", CALL)))[-1] == ("tool_call", CALL)
    dropped = canonical(turns(U, ("tool_call", CALL), ("tool", "8:00")))
    assert dropped.messages[-1].role == "tool_call"
    assert dropped.changes == {"last_turn_dropped", "role_renamed"}


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "{}",
        "[]",
        None,
        7,
        '{"name": ""}',
        '{"name": "f", "arguments": "no JSON"}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": {"x": NaN}}',
    ],
)
def test_a_call_that_no_agent_template_reads_is_rejected(content: Any) -> None:
    assert refused(turns(U, ("tool_call", content), ("tool", "r"), A)).code == "broken_tool_call"


def test_a_call_without_arguments_has_none() -> None:
    for call in ('{"name": "f"}', {"name": "f", "arguments": ""}, {"name": "f", "arguments": None}):
        row = turns(U, ("tool_call", call))
        assert said(row)[1][1] == '{"name": "f", "arguments": {}}'


@pytest.mark.parametrize(
    "order",
    [
        [U, ("tool", "r"), A],
        [U, ("tool_call", CALL), A],
        [U, ("tool_call", CALL), U, A],
        [U, ("tool_call", CALL), ("tool", "r"), U, A],
        [U, A, ("tool", "r"), A],
    ],
)
def test_calls_and_responses_that_do_not_follow_each_other_are_rejected(order: Any) -> None:
    assert refused(turns(*order)).code == "tool_order"


@pytest.mark.parametrize(
    "tools",
    [
        [TOOL],
        TOOL,
        json.dumps([TOOL]),
        [json.dumps(TOOL)],
        [{"type": "function", "function": TOOL}],
    ],
)
def test_tools_in_any_form_become_the_json_text_of_a_list(tools: Any) -> None:
    row = canonical({**turns(*CALLED), "tools": tools})
    assert row.tools is not None
    (tool,) = json.loads(row.tools)
    assert tool.get("function", tool) == TOOL
    assert row.as_row()["tools"] == row.tools
    assert row.changes == set()


@pytest.mark.parametrize("tools", ["no JSON", [7], [{}], [{"type": "function"}], 7, [{"name": 3}]])
def test_tools_that_are_no_tools_are_rejected(tools: Any) -> None:
    assert refused({**turns(U, A), "tools": tools}).code == "broken_tool_call"


def test_no_tools_are_no_column() -> None:
    nothing: list[Any] = [None, "", [], "[]"]
    for tools in nothing:
        assert "tools" not in canonical({**turns(U, A), "tools": tools}).as_row()


def test_the_text_of_tools_is_made_harmless_as_that_of_turns() -> None:
    tool = {"name": "f", "description": "ends with <|im_end|> or {{ROUND0}}"}
    row = canonical({**turns(U, A), "tools": [tool]})
    assert row.tools is not None
    assert json.loads(row.tools)[0]["description"] == "ends with < |im_end|> or { {ROUND0}}"
    assert row.changes == {"control_tokens_neutralised", "placeholders_neutralised"}


def test_a_number_in_a_call_that_is_masked_away_costs_the_row() -> None:
    rules = {"phone_number": "mask"}
    quoted = '{"name": "f", "arguments": {"tel": "13800138000"}}'
    assert "[phone]" in said(turns(U, ("tool_call", quoted)), rules=rules)[1][1]
    bare = '{"name": "f", "arguments": {"tel": 13800138000}}'
    assert refused(turns(U, ("tool_call", bare)), rules=rules).code == "broken_tool_call"


def test_reasoning_given_apart_becomes_the_think_block() -> None:
    answer = {"role": "assistant", "content": "a", "reasoning_content": "because\n"}
    row = canonical({"messages": [{"role": "user", "content": "q"}, answer]})
    assert row.messages[-1].content == "<think>\nbecause\n</think>\n\na"
    assert row.changes == {"reasoning_joined"}
    twice = {**answer, "content": "<think>\nx\n</think>\n\na"}
    error = refused({"messages": [{"role": "user", "content": "q"}, twice]})
    assert error.code == "ambiguous_columns"


def test_a_think_block_may_stand_alone_before_a_call() -> None:
    row = turns(U, ("assistant", "<think>\nhm\n</think>"), ("tool_call", CALL))
    assert len(canonical(row).messages) == 3


@pytest.mark.parametrize(
    ("turn", "named"),
    [
        ({"role": "assistant", "content": "a", "loss": False}, "`loss`"),
        ({"role": "assistant", "content": "a", "weight": 0}, "`weight`"),
        ({"role": "assistant", "content": "a", "loss_scale": 0.5}, "`loss_scale`"),
        ({"role": "user", "content": "q", "loss": True}, "`loss`"),
        ({"role": "user", "content": "q", "images": ["x.png"]}, "`images`"),
    ],
)
def test_keys_that_change_what_is_trained_are_refused(turn: dict[str, Any], named: str) -> None:
    other = {"role": "assistant", "content": "a"}
    pair = [turn, other] if turn["role"] == "user" else [{"role": "user", "content": "q"}, turn]
    error = refused({"messages": pair})
    assert error.code == "unsupported_message_key"
    assert named in error.detail


def test_keys_that_say_what_happens_anyway_are_dropped_and_counted() -> None:
    row = canonical(
        {
            "messages": [
                {"role": "user", "content": "q", "name": "Li", "loss": False},
                {"role": "assistant", "content": "a", "loss": True, "weight": 1, "images": []},
            ]
        }
    )
    assert row.changes == {"message_keys_dropped"}


def test_a_turn_with_two_roles_or_two_contents_is_not_guessed() -> None:
    turn = {"role": "user", "from": "human", "content": "q"}
    assert refused({"messages": [turn]}).code == "ambiguous_columns"
    turn = {"role": "user", "value": "p", "content": "q"}
    assert refused({"messages": [turn]}).code == "ambiguous_columns"


def test_the_system_of_the_first_pair_is_the_system_of_the_dialogue() -> None:
    pairs = [{"system": "s", "input": "q", "output": "a"}, {"input": "q2", "output": "a2"}]
    row = canonical({"conversation": pairs})
    assert [message.role for message in row.messages] == ["system", *["user", "assistant"] * 2]
    assert row.changes == set()
