from __future__ import annotations

from typing import Any

import pytest
from support_rows import A, U, canonical, refused, said, turns

from palmswift.data.checks import Canonicaliser
from palmswift.errors import InputError
from palmswift.recipes.recipe import DataSettings

ASKED = [("user", "几点开门？"), ("assistant", "八点")]


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"query": "几点开门？", "response": "八点"}, "query_response"),
        ({"Query": "几点开门？", "RESPONSE": "八点"}, "query_response"),
        ({"question": "几点开门？", "answer": "八点"}, "query_response"),
        ({"prompt": "几点开门？", "completion": "八点"}, "query_response"),
        ({"input": "几点开门？", "output": "八点"}, "query_response"),
        ({"problem": "几点开门？", "solution": "八点"}, "query_response"),
        ({"question": "几点开门？", "text": "八点"}, "query_response"),
        ({"问题": "几点开门？", "答案": "八点"}, "query_response"),
        ({"客户": "几点开门？", "客服": "八点"}, "query_response"),
        ({"q": "几点开门？", "a": "八点"}, "query_response"),
        ({"user": "几点开门？", "assistant": "八点"}, "query_response"),
        ({"instruction": "几点开门？", "input": "", "output": "八点"}, "alpaca"),
        ({"instruction": "几点开门？", "input": None, "output": "八点"}, "alpaca"),
        ({"instruction": "几点开门？", "output": "八点"}, "alpaca"),
        ({"instruction": "几点开门？", "context": "", "response": "八点"}, "alpaca"),
        (turns(*ASKED), "messages"),
        (turns(*ASKED)["messages"], "messages"),
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
        ({"conversation": [{"input": "几点开门？", "output": "八点", "system": ""}]}, "pairs"),
        (["几点开门？", "八点"], "lccc"),
        ({"dialogue": ["几点开门？", "八点"]}, "lccc"),
        ({"conversation": ["几点开门？", "八点"]}, "lccc"),
        (
            {
                "messages": '[{"role": "User", "content": [{"type": "text", "text": "几点开门？"}'
                ']}, {"role": "bot", "content": "八点"}]'
            },
            "messages",
        ),
        (
            {
                "messages": "[{'role': 'user', 'content': '几点开门？'},"
                " {'role': 'assistant', 'content': '八点'}]"
            },
            "messages",
        ),
        (
            "<|im_start|>user\n几点开门？<|im_end|>\n<|im_start|>assistant\n八点<|im_end|>\n",
            "chatml",
        ),
        ({"text": "<|im_start|>user\n几点开门？<|im_end|>\n<|im_start|>assistant\n八点"}, "chatml"),
        (
            {
                "prompt": "<|im_start|>user\n几点开门？<|im_end|>\n<|im_start|>assistant\n",
                "response": "八点<|im_end|>",
            },
            "chatml",
        ),
        (
            {"prompt": [{"role": "user", "content": "几点开门？"}], "completion": "八点"},
            "query_response",
        ),
    ],
)
def test_each_shape_becomes_the_same_messages(row: Any, shape: str) -> None:
    kept = canonical(row)
    assert (kept.shape, [tuple(message) for message in kept.messages]) == (shape, ASKED)


def test_a_dialogue_as_in_lccc_is_read_whole() -> None:
    assert said(["早", "早", "吃了吗", "吃了"]) == [
        *(("user", "早"), ("assistant", "早")),
        *(("user", "吃了吗"), ("assistant", "吃了")),
    ]
    odd = canonical(["早", "早", "吃了吗"])
    assert len(odd.messages) == 2
    assert odd.changes == {"last_turn_dropped"}


def test_alpaca_input_and_dolly_context_stand_below_the_instruction() -> None:
    assert said({"instruction": "翻译", "input": "早", "output": "morning"})[0][1] == "翻译\n早"
    dolly = canonical({"instruction": "i", "context": "c", "response": "r", "category": "qa"})
    assert dolly.messages[0].content == "i\nc"
    assert dolly.changes == {"columns_dropped"}


@pytest.mark.parametrize(
    "history",
    [
        [["q1", "a1"]],
        '[["q1", "a1"]]',
        "[('q1', 'a1')]",
        [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}],
    ],
)
def test_history_and_system_come_before_the_question(history: Any) -> None:
    row = {"system": "s", "history": history, "query": "q2", "response": "a2"}
    assert [text for _, text in said(row)] == ["s", "q1", "a1", "q2", "a2"]
    assert said(row)[0][0] == "system"


def test_the_system_column_of_a_conversation_is_put_first() -> None:
    assert said({**turns(U, A), "system": "s"})[0] == ("system", "s")
    told = turns(("system", "s"), U, A)
    assert len(said({**told, "system": "s"})) == 3
    assert refused({**told, "system": "other"}).code == "ambiguous_columns"


def test_mapped_columns_are_used_and_others_are_not_guessed() -> None:
    columns = {"query": "问句", "response": "客服说"}
    row = canonical({"问句": "q", "客服说": "a", "answer": "other"}, columns=columns)
    assert [message.content for message in row.messages] == ["q", "a"]
    assert row.changes == {"columns_dropped"}
    assert refused({"question": "q", "客服说": "a"}, columns=columns).code == "no_question"


def test_our_own_output_is_known_under_any_mapping() -> None:
    columns = {"messages": "对话", "rejected": "差", "label": "好坏", "solution": "得数"}
    pair = canonical({"对话": turns(U, A)["messages"], "差": "b"}, "dpo", columns=columns)
    assert canonical(pair.as_row(), "dpo", columns=columns).as_row() == pair.as_row()
    judged = canonical({"对话": turns(U, A)["messages"], "好坏": "好"}, "kto", columns=columns)
    assert canonical(judged.as_row(), "kto", columns=columns).label is True
    asked = canonical({"对话": turns(U)["messages"], "得数": "2"}, "grpo", columns=columns)
    assert asked.extra == {"solution": "2"}
    assert canonical(asked.as_row(), "grpo", columns=columns).extra == {"solution": "2"}


def test_a_column_for_no_known_use_is_refused_before_any_row() -> None:
    with pytest.raises(InputError, match=r"data\.columns\.questions"):
        Canonicaliser("sft", DataSettings(columns={"questions": "问"}))


@pytest.mark.parametrize(
    ("row", "code", "named"),
    [
        ({"question": "q", "prompt": "p", "response": "a"}, "ambiguous_columns", "`prompt`"),
        ({"query": "q", "response": "a", "answer": "b"}, "ambiguous_columns", "`answer`"),
        ({"instruction": "i", "question": "q", "output": "a"}, "ambiguous_columns", "`question`"),
        ({**turns(U, A), "history": [["q", "a"]]}, "ambiguous_columns", "history"),
        ({"messages": [], "conversations": []}, "no_messages", ""),
        ({"messages": [U], "conversations": [A]}, "ambiguous_columns", "`conversations`"),
        ({"messages": ["hi"]}, "no_answer", ""),
        ({"foo": 1}, "unknown_shape", "`foo`"),
        ({"问": None, "答": None}, "no_question", ""),
        ({}, "unknown_shape", "none"),
        ({"response": "a"}, "no_question", ""),
        ({"query": None, "response": "a"}, "no_question", ""),
        ({"query": "q"}, "no_answer", ""),
        ({"query": "q", "response": None}, "no_answer", ""),
        ({"query": "q", "response": None, "text": "other"}, "no_answer", ""),
        ({"instruction": "i", "input": "", "output": None}, "no_answer", ""),
        ({"query": "q", "response": ["a"]}, "non_text_content", ""),
        ({"query": "q", "response": 7}, "non_text_content", ""),
        ({"instruction": "i", "input": 7, "output": "a"}, "non_text_content", ""),
        ({"query": "q", "response": "a", "history": "old"}, "broken_history", ""),
        ({"query": "q", "response": "a", "history": [["q"]]}, "broken_history", "pair 1"),
        ({"query": "q", "response": "a", "images": ["x.png"]}, "unsupported_column", "`images`"),
        ({"messages": "hi"}, "no_messages", "text"),
        ({"messages": "[{'role': 'user', 'content': 'q'}, ['a']]"}, "broken_turn", "turn 2"),
        ({"messages": {"role": "user"}}, "no_messages", "an object"),
        ({"messages": [{"role": "user", "content": "q"}, "a"]}, "broken_turn", "turn 2"),
        ([["q", "a"]], "broken_turn", "turn 1 is a list"),
        ({"messages": [{"role": "user"}]}, "broken_turn", "no content"),
        ({"messages": [{"content": "q"}]}, "broken_turn", "no role"),
        ("a line of text", "plain_text", "task: pt"),
        ({"text": "a line of text"}, "plain_text", "task: pt"),
        ({"content": "a line", "id": 7}, "plain_text", "`content`"),
    ],
)
def test_a_row_without_one_clear_reading_is_rejected_by_name(
    row: Any, code: str, named: str
) -> None:
    error = refused(row)
    assert error.code == code
    assert named in error.detail


def test_empty_columns_for_what_is_not_handled_do_no_harm() -> None:
    blank = {"images": list[str](), "tools": None, "chosen": "", "system": ""}
    assert canonical({"query": "q", "response": "a", **blank}).changes == set()


@pytest.mark.parametrize(
    ("row", "kind", "named"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "sft", "dpo"),
        ({**turns(U, A), "rejected_response": "b"}, "sft", "dpo"),
        ({**turns(U, A), "rejected_messages": [U, A]}, "kto", "dpo"),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "grpo", "dpo"),
        ({"query": "q", "response": "a", "label": True}, "sft", "kto"),
        ({"query": "q", "response": "a", "label": "False"}, "dpo", "kto"),
        ({"query": "q", "response": "a", "kto_tag": 1}, "sft", "kto"),
        ({**turns(U), "solution": "42"}, "sft", "grpo"),
        ({"query": "q", "response": "a"}, "pt", "sft"),
        (turns(U, A), "pt", "sft"),
        (["q", "a"], "pt", "sft"),
        ("<|im_start|>user\nq<|im_end|>", "pt", "sft"),
    ],
)
def test_a_row_for_another_task_is_rejected_with_the_task_it_is_for(
    row: Any, kind: Any, named: str
) -> None:
    error = refused(row, kind)
    assert error.code == "other_task"
    assert f"for {named}" in error.detail


def test_a_class_or_score_named_label_is_no_reason_to_refuse_an_answer() -> None:
    for label in (0, 3, "spam", "0.5"):
        assert canonical({"query": "q", "response": "a", "label": label}).changes == {
            "columns_dropped"
        }


@pytest.mark.parametrize(
    "row",
    [
        "一段 文字",
        {"text": "一段 文字"},
        {"content": "一段 文字", "title": "题"},
        {"正文": "一段 文字"},
        {"query": "", "response": "一段 文字"},
        turns(("assistant", "一段 文字")),
    ],
)
def test_plain_text_trains_as_one_answer_without_a_system_prompt(row: Any) -> None:
    assert said(row, "pt", system="be kind") == [("assistant", "一段 文字")]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("  ", "no_text"),
        ({"text": None}, "no_text"),
        ({"text": 7}, "non_text_content"),
        ({"text": "a", "content": "b"}, "ambiguous_columns"),
        ({"id": 7}, "unknown_shape"),
    ],
)
def test_a_row_without_one_text_is_no_plain_text(row: Any, code: str) -> None:
    assert refused(row, "pt").code == code


def test_the_text_column_of_several_can_be_named() -> None:
    row = {"text": "a", "content": "b", "prompt": "c"}
    assert said(row, "pt", columns={"text": "content"}) == [("assistant", "b")]
