from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.json
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_rows import A, S, U, canonical, refused, said, turns

from palmswift.data.checks import Canonicaliser, date_columns, is_timestamp
from palmswift.errors import InputError
from palmswift.recipes.recipe import DataSettings


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (turns(), "no_messages"),
        (turns(S), "no_answer"),
        (turns(U), "no_answer"),
        (turns(S, U), "no_answer"),
        (turns(U, ("assistant", None)), "no_answer"),
        (turns(("user", None), A), "no_question"),
        (turns(U, ("assistant", "")), "blank_answer"),
        (turns(U, ("assistant", " \n\t　")), "blank_answer"),
        (turns(U, ("assistant", "\u200b")), "blank_answer"),
        (turns(U, ("assistant", " "), U, A), "blank_answer"),
        (turns(("user", ""), A), "blank_question"),
        (turns(A), "first_turn_not_user"),
        (turns(A, U, A), "first_turn_not_user"),
        (turns(("tool", "x"), U, A), "first_turn_not_user"),
        (turns(U, U, A), "two_turns_in_a_row"),
        (turns(U, A, A), "two_turns_in_a_row"),
        (turns(U, S, A), "system_not_first"),
        (turns(S, S, U, A), "system_not_first"),
        (turns(("narrator", "x"), U, A), "unknown_role"),
        (turns((None, "x"), U, A), "unknown_role"),
        (turns((7, "x"), U, A), "unknown_role"),
        (turns(U, ("assistant", 42)), "non_text_content"),
        (turns(U, ("assistant", True)), "non_text_content"),
        (turns(U, ("assistant", 1.5)), "non_text_content"),
        (turns(U, ("assistant", {"text": "a"})), "non_text_content"),
        (turns(U, ("assistant", ["a", "b"])), "non_text_content"),
        (turns(U, ("assistant", [5, 6, 7])), "non_text_content"),
        (turns(U, ("assistant", [])), "non_text_content"),
        (turns(("user", [{"type": "image_url", "image_url": "x"}]), A), "non_text_content"),
        (turns(U, ("assistant", "<think>\n\n</think>\n\n")), "think_only_answer"),
        (turns(U, ("assistant", "<think>hm</think>")), "think_only_answer"),
        (turns(U, ("assistant", "<think>hm yes")), "unclosed_think"),
        (turns(U, ("assistant", "hm</think>yes")), "unclosed_think"),
        (turns(U, ("assistant", "</think>hm<think>yes")), "unclosed_think"),
        (turns(U, ("assistant", "yes <think>hm</think> no")), "misplaced_think"),
        (turns(U, ("assistant", "<think>a</think><think>b</think>c")), "misplaced_think"),
        (turns(U, ("assistant", "<think>a"), U, A), "unclosed_think"),
    ],
)
def test_a_row_that_would_not_train_as_meant_is_rejected(row: Any, code: str) -> None:
    assert refused(row).code == code


@pytest.mark.parametrize(
    "answer",
    [
        "007",
        "2024-01-01",
        "<think>\nreason\n</think>\n\nyes",
        "<think>\n\n</think>\n\nyes",
        "<image> stays text, and so do {{QUERY}} and {{ROUND0}} in an answer",
        "- a\n- b\n\n```\ncode\n```",
        "[1, 2]",
        '[{"role": "user", "content": "JSON as an answer"}]',
        "true",
    ],
)
def test_an_answer_that_trains_as_meant_is_kept_as_it_is(answer: str) -> None:
    for row in (turns(U, ("assistant", answer)), {"query": "q", "response": answer}):
        kept = canonical(row)
        assert kept.messages[-1].content == answer
        assert kept.changes == set()
        assert kept.findings == set()


def test_a_think_tag_in_a_question_is_left_there() -> None:
    assert said(turns(("user", "what is <think>?"), A))[0][1] == "what is <think>?"


def test_a_question_at_the_end_is_dropped_or_rejected() -> None:
    row = canonical(turns(U, A, U))
    assert [tuple(message) for message in row.messages] == [U, A]
    assert row.changes == {"last_turn_dropped"}
    rules = {"last_turn_not_assistant": "reject"}
    assert refused(turns(U, A, U), rules=rules).code == "last_turn_not_assistant"


def test_answers_before_the_first_question_are_rejected_or_dropped() -> None:
    rules = {"first_turn_not_user": "drop"}
    row = canonical(turns(S, A, U, A), rules=rules)
    assert [tuple(message) for message in row.messages] == [S, U, A]
    assert row.changes == {"first_turns_dropped"}
    assert refused(turns(A), rules=rules).code == "no_question"


def test_turns_of_one_side_are_rejected_or_merged_as_lines() -> None:
    rules = {"two_turns_in_a_row": "merge"}
    row = canonical(
        turns(("user", "在吗"), ("user", " 几点开门？"), A, ("assistant", "b")), rules=rules
    )
    assert [tuple(message) for message in row.messages] == [
        *(("user", "在吗\n 几点开门？"), ("assistant", "a\nb")),
    ]
    assert row.changes == {"turns_merged"}
    blank = canonical(turns(U, ("user", " "), A), rules=rules)
    assert [tuple(message) for message in blank.messages] == [U, A]


def test_the_default_system_prompt_goes_to_rows_that_have_none() -> None:
    row = canonical(turns(U, A), system="be kind\n")
    assert row.messages[0] == ("system", "be kind")
    assert row.changes == {"system_added"}
    own = canonical(turns(S, U, A), system="be kind")
    assert own.messages[0] == ("system", "s")
    assert own.changes == set()


def test_a_default_system_prompt_is_made_harmless_and_a_bad_one_refused_at_once() -> None:
    row = canonical(turns(U, A), system="<|im_end|> ends")
    assert row.messages[0].content == "< |im_end|> ends"
    with pytest.raises(InputError, match=r"data\.system"):
        Canonicaliser("sft", DataSettings(system="nul\x00"))


@pytest.mark.parametrize("blank", ["", "  ", None, "\u200b"])
def test_a_blank_system_prompt_is_dropped_and_counted(blank: Any) -> None:
    row = canonical(turns(("system", blank), U, A))
    assert [message.role for message in row.messages] == ["user", "assistant"]
    assert "blank_system_dropped" in row.changes
    filled = canonical(turns(("system", blank), U, A), system="s")
    assert filled.messages[0] == ("system", "s")


def test_blank_space_around_a_turn_is_removed_and_counted() -> None:
    row = canonical(turns(("user", " q \n"), ("assistant", "\n\n a\n b ")))
    assert [message.content for message in row.messages] == ["q", "a\n b"]
    assert row.changes == {"whitespace_stripped"}


@pytest.mark.parametrize("role", ["User", "human", " HUMAN ", "用户", "患者", "customer"])
def test_a_role_under_another_name_is_renamed_and_counted(role: str) -> None:
    row = canonical(turns((role, "q"), ("Assistant", "a")))
    assert [message.role for message in row.messages] == ["user", "assistant"]
    assert row.changes == {"role_renamed"}


def test_the_row_as_it_was_read_stays_with_the_canonical_one() -> None:
    value = {"query": " q", "response": "a"}
    row = canonical(value)
    assert row.source is value
    assert value == {"query": " q", "response": "a"}


def test_which_columns_of_a_row_hold_only_dates() -> None:
    row = canonical(turns(("user", "2024-01-01"), ("assistant", "2024-01-02T10:00:00Z")))
    assert is_timestamp(row)
    assert date_columns(row) == {"messages"}
    assert date_columns(canonical(turns(("user", "2024-01-01"), A))) == set()
    pair = canonical({"prompt": "q", "chosen": "a", "rejected": "2024-01-01"}, "dpo")
    assert date_columns(pair) == {"rejected_response"}
    asked = canonical({"prompt": "q", "solution": "2024-01-01", "n": 1, "day": "May"}, "grpo")
    assert date_columns(asked) == {"solution"}


def arrow_makes_a_date(text: str) -> bool:
    document = pa.py_buffer(f'{{"a": "{text}"}}'.encode())
    table = pyarrow.json.read_json(pa.BufferReader(document))
    return bool(pa.types.is_timestamp(table.schema.field("a").type))


@given(
    st.from_regex(r"20\d\d-(0\d|1[0-3])-[0-3]\d", fullmatch=True),
    st.sampled_from(["", " ", "T", "t"]),
    st.from_regex(r"([0-2]\d(:?[0-6]\d(:?[0-6]\d(\.\d{1,9})?)?)?)?", fullmatch=True),
    st.sampled_from(["", "Z", "z", "+08", "+0800", "+08:00", "-08:00", " Z", "UTC"]),
)
def test_all_that_the_loader_takes_for_a_date_is_known_as_one(
    day: str, between: str, time: str, zone: str
) -> None:
    text = day + between + time + zone
    assert not arrow_makes_a_date(text) or is_timestamp(canonical(text, "pt"))
