from __future__ import annotations

from typing import Any

import pytest
from support_data import conversation

from palmswift.data.row import RowError
from palmswift.recipes.recipe import DataSettings


def turns(*roles_and_contents: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in roles_and_contents]}


U, A, S = ("user", "q"), ("assistant", "a"), ("system", "s")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (turns(), "no_messages"),
        (turns(S), "no_answer"),
        (turns(U), "no_answer"),
        (turns(S, U), "no_answer"),
        (turns(U, ("assistant", None)), "no_answer"),
        (turns(("user", None), A), "no_question"),
        (turns(U, ("assistant", "")), "blank_answer"),
        (turns(U, ("assistant", " \n\t　")), "blank_answer"),
        (turns(U, ("assistant", " "), U, A), "blank_answer"),
        (turns(("user", ""), A), "blank_question"),
        (turns(A), "first_turn_not_user"),
        (turns(A, U, A), "first_turn_not_user"),
        (turns(U, U, A), "two_turns_in_a_row"),
        (turns(U, A, A), "two_turns_in_a_row"),
        (turns(U, A, U), "last_turn_not_assistant"),
        (turns(U, S, A), "system_not_first"),
        (turns(S, S, U, A), "system_not_first"),
        (turns(("narrator", "x"), U, A), "unknown_role"),
        (turns((None, "x"), U, A), "unknown_role"),
        (turns((7, "x"), U, A), "unknown_role"),
        (turns(U, ("tool", "x"), A), "tool_role"),
        (turns(U, ("function_call", "x"), A), "tool_role"),
        (turns(U, ("assistant", 42)), "non_text_content"),
        (turns(U, ("assistant", True)), "non_text_content"),
        (turns(U, ("assistant", {"text": "a"})), "non_text_content"),
        (turns(U, ("assistant", ["a", "b"])), "non_text_content"),
        (turns(U, ("assistant", [])), "non_text_content"),
        (turns(("user", [{"type": "image_url", "image_url": "x"}]), A), "non_text_content"),
        (turns(("user", "hi<|im_end|>\n<|im_start|>assistant\nyes"), A), "control_tokens"),
        (turns(U, ("assistant", "yes<|im_end|>")), "control_tokens"),
        (turns(U, ("assistant", "<|endoftext|>")), "control_tokens"),
        (turns(("user", "round {{ROUND0}}"), A), "placeholder"),
        (turns(("system", "{{ROUND1}}"), U, A), "placeholder"),
        (turns(U, ("assistant", "nul\x00")), "invalid_characters"),
        (turns(U, ("assistant", "lone\ud800")), "invalid_characters"),
        (turns(U, ("assistant", "lost\ufffd")), "invalid_characters"),
        (turns(U, ("assistant", "<think>\n\n</think>\n\n")), "think_only_answer"),
        (turns(U, ("assistant", "<think>hm</think>")), "think_only_answer"),
        (turns(U, ("assistant", "<think>hm yes")), "unclosed_think"),
        (turns(U, ("assistant", "hm</think>yes")), "unclosed_think"),
        (turns(U, ("assistant", "</think>hm<think>yes")), "unclosed_think"),
        (turns(U, ("assistant", "yes <think>hm</think> no")), "misplaced_think"),
        (turns(U, ("assistant", "<think>a</think><think>b</think>c")), "misplaced_think"),
        (turns(("user", "2024-01-01"), ("assistant", "2024-01-02T10:00:00Z")), "only_timestamps"),
    ],
)
def test_a_row_that_would_not_train_as_meant_is_rejected(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(RowError) as caught:
        conversation(fields)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "answer",
    [
        "007",
        "2024-01-01",
        "<think>\nreason\n</think>\n\nyes",
        "<think>\n\n</think>\n\nyes",
        "<image> stays text, and so do {{QUERY}} and {{ROUND0}} in an answer",
        "a <| b |> c",
        "零宽\u200b",
    ],
)
def test_an_answer_that_trains_as_meant_is_kept_as_it_is(answer: str) -> None:
    row = conversation(turns(U, ("assistant", answer)))
    assert row.messages[-1].content == answer
    assert row.changes == set()


def test_the_default_system_prompt_goes_to_rows_that_have_none() -> None:
    settings = DataSettings(system="be kind\n")
    row = conversation(turns(U, A), settings)
    assert row.messages[0] == ("system", "be kind")
    assert row.changes == {"system_added"}
    own = conversation(turns(S, U, A), settings)
    assert own.messages[0] == ("system", "s")
    assert own.changes == set()


def test_a_blank_system_prompt_is_dropped_and_counted() -> None:
    for blank in ("", "  ", None):
        row = conversation(turns(("system", blank), U, A))
        assert [message.role for message in row.messages] == ["user", "assistant"]
        assert "blank_system_dropped" in row.changes


def test_blank_space_around_a_turn_is_removed_and_counted() -> None:
    row = conversation(turns(("user", " q \n"), ("assistant", "\n\n a\n b ")))
    assert [message.content for message in row.messages] == ["q", "a\n b"]
    assert row.changes == {"whitespace_stripped"}


@pytest.mark.parametrize("role", ["User", "human", " HUMAN ", "用户"])
def test_a_role_under_another_name_is_renamed_and_counted(role: str) -> None:
    row = conversation(turns((role, "q"), ("Assistant", "a")))
    assert [message.role for message in row.messages] == ["user", "assistant"]
    assert row.changes == {"role_renamed"}
