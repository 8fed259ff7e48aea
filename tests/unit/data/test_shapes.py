from __future__ import annotations

from typing import Any

import pytest
from support_data import conversation

from palmswift.data.row import RowError
from palmswift.recipes.recipe import DataSettings

ASKED = [("user", "几点开门？"), ("assistant", "八点")]


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"query": "几点开门？", "response": "八点"}, "query_response"),
        ({"Query": "几点开门？", "RESPONSE": "八点", "id": 7}, "query_response"),
        ({"question": "几点开门？", "answer": "八点"}, "query_response"),
        ({"prompt": "几点开门？", "completion": "八点"}, "query_response"),
        ({"input": "几点开门？", "output": "八点"}, "query_response"),
        ({"问题": "几点开门？", "答案": "八点"}, "query_response"),
        ({"instruction": "几点开门？", "input": "", "output": "八点"}, "alpaca"),
        ({"instruction": "几点开门？", "input": None, "output": "八点"}, "alpaca"),
        ({"instruction": "几点开门？", "output": "八点"}, "alpaca"),
        (
            {
                "messages": [
                    {"role": "user", "content": "几点开门？"},
                    {"role": "assistant", "content": "八点"},
                ],
                "prompt": "kept out",
            },
            "messages",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "几点开门？"},
                    {"from": "gpt", "value": "八点"},
                ]
            },
            "sharegpt",
        ),
        ({"conversation": [{"human": "几点开门？", "assistant": "八点"}]}, "pairs"),
        (
            {
                "messages": '[{"role": "User", "content": [{"type": "text", "text": "几点开门？"}'
                ']}, {"role": "bot", "content": "八点"}]'
            },
            "messages",
        ),
    ],
)
def test_each_shape_becomes_the_same_messages(fields: dict[str, Any], shape: str) -> None:
    row = conversation(fields)
    assert (row.shape, [tuple(message) for message in row.messages]) == (shape, ASKED)


def test_alpaca_input_stands_below_its_instruction() -> None:
    row = conversation({"instruction": "翻译", "input": "早", "output": "morning"})
    assert row.messages[0].content == "翻译\n早"


def test_history_and_system_come_before_the_question() -> None:
    row = conversation({"system": "s", "history": [["q1", "a1"]], "query": "q2", "response": "a2"})
    assert [message.content for message in row.messages] == ["s", "q1", "a1", "q2", "a2"]
    assert row.messages[0].role == "system"


def test_the_system_column_of_a_conversation_is_put_first() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert conversation({"messages": turns, "system": "s"}).messages[0] == ("system", "s")
    told = [{"role": "system", "content": "s"}, *turns]
    assert len(conversation({"messages": told, "system": "s"}).messages) == 3
    with pytest.raises(RowError, match="ambiguous_columns"):
        conversation({"messages": told, "system": "other"})


def test_mapped_columns_are_used_and_others_are_not_guessed() -> None:
    settings = DataSettings(columns={"query": "问句", "response": "客服说"})
    row = conversation({"问句": "q", "客服说": "a", "answer": "other"}, settings)
    assert [message.content for message in row.messages] == ["q", "a"]
    assert row.changes == {"columns_dropped"}
    with pytest.raises(RowError, match="no_question"):
        conversation({"question": "q", "客服说": "a"}, settings)


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"question": "q", "prompt": "p", "response": "a"}, "ambiguous_columns", "`prompt`"),
        ({"query": "q", "response": "a", "answer": "b"}, "ambiguous_columns", "`answer`"),
        ({"instruction": "i", "question": "q", "output": "a"}, "ambiguous_columns", "`question`"),
        ({"messages": [], "conversations": []}, "no_messages", ""),
        ({"messages": ["a"], "conversations": ["b"]}, "ambiguous_columns", "`conversations`"),
        ({"text": "<|im_start|>user\nhi<|im_end|>"}, "unknown_shape", "`text`"),
        ({"foo": 1}, "unknown_shape", "`foo`"),
        ({}, "unknown_shape", "none"),
        ({"response": "a"}, "no_question", ""),
        ({"query": None, "response": "a"}, "no_question", ""),
        ({"query": "q"}, "no_answer", ""),
        ({"query": "q", "response": None}, "no_answer", ""),
        ({"query": "q", "response": ["a"]}, "non_text_content", ""),
        ({"query": "q", "response": 7}, "non_text_content", ""),
        ({"instruction": "i", "input": 7, "output": "a"}, "non_text_content", ""),
        ({"query": "q", "response": "a", "history": "old"}, "broken_history", ""),
        ({"query": "q", "response": "a", "history": [["q"]]}, "broken_history", "pair 1"),
        ({"query": "q", "response": "a", "tools": [{}]}, "unsupported_column", "`tools`"),
        ({"query": "q", "response": "a", "rejected_response": "b"}, "unsupported_column", ""),
        ({"messages": "hi"}, "no_messages", "text"),
        ({"messages": {"role": "user"}}, "no_messages", "an object"),
        ({"messages": ["hi", "yes"]}, "broken_turn", "turn 1"),
        ({"messages": [{"role": "user"}]}, "broken_turn", "no content"),
        ({"messages": [{"content": "q"}]}, "broken_turn", "no role"),
        (
            {"messages": [{"role": "user", "from": "human", "content": "q"}]},
            "ambiguous_columns",
            "`from`",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a", "loss": False}]},
            "unsupported_message_key",
            "`loss`",
        ),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]},
            "unsupported_message_key",
            "`tool_calls`",
        ),
    ],
)
def test_a_row_without_one_clear_reading_is_rejected_by_name(
    fields: dict[str, Any], code: str, named: str
) -> None:
    with pytest.raises(RowError) as caught:
        conversation(fields)
    assert caught.value.code == code
    assert named in caught.value.detail


def test_empty_columns_for_what_is_not_handled_do_no_harm() -> None:
    row = conversation({"query": "q", "response": "a", "images": [], "tools": None, "chosen": ""})
    assert row.changes == set()


def test_extra_keys_of_a_turn_are_dropped_and_counted() -> None:
    row = conversation(
        {
            "messages": [
                {"role": "user", "content": "q", "name": "Li"},
                {"role": "assistant", "content": "a"},
            ]
        }
    )
    assert row.changes == {"message_keys_dropped"}
