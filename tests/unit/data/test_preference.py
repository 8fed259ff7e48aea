"""Rows that compare, judge or reward answers: dpo, kto and grpo."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from support_rows import A, S, U, canonical, refused, said, turns

Q = {"role": "user", "content": "q"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
CALL = '{"name": "f", "arguments": {}}'


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"query": "q", "response": "good", "rejected_response": "bad"},
        {"query": "q", "response": "good", "rejected": "bad"},
        {"问题": "q", "优选": "good", "劣选": "bad"},
        {"messages": [Q, GOOD], "rejected_response": "bad"},
        {"messages": [Q, GOOD], "rejected_messages": [Q, BAD]},
        {"messages": [Q], "chosen": "good", "rejected": "bad"},
        {"messages": [Q], "response": "good", "rejected": "bad"},
        {"prompt": [Q], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [Q, GOOD], "rejected": [Q, BAD]},
        {"chosen": [Q, GOOD], "rejected": "bad"},
        {"prompt": "q", "chosen": [Q, GOOD], "rejected": [Q, BAD]},
        {"prompt": "q", "messages": [Q, GOOD], "chosen": [Q, GOOD], "rejected": [Q, BAD]},
        {"chosen": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}]'}
        | {"rejected": [Q, BAD]},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
    ],
)
def test_every_form_of_a_pair_becomes_the_same_row(row: dict[str, Any]) -> None:
    kept = canonical(row, "dpo")
    assert kept.as_row() == {"messages": [Q, GOOD], "rejected_response": "bad"}


def test_an_answer_that_is_json_stays_text() -> None:
    text = '[{"role": "user", "content": "x"}]'
    row = canonical({"prompt": "q", "chosen": "a", "rejected": text}, "dpo")
    assert row.rejected_response == text
    assert canonical(row.as_row(), "dpo").rejected_response == text


def test_both_dialogues_of_a_pair_get_the_same_system_and_history() -> None:
    row = {"system": "s", "history": [["q1", "a1"]], "prompt": "q", "chosen": "c", "rejected": "r"}
    kept = canonical(row, "dpo")
    assert [message.content for message in kept.messages] == ["s", "q1", "a1", "q", "c"]
    assert kept.rejected_response == "r"
    prompt = [{"role": "system", "content": "s"}, Q]
    told = canonical({"prompt": prompt, "chosen": [Q, GOOD], "rejected": [Q, BAD]}, "dpo")
    assert told.messages[0] == ("system", "s")
    plain = canonical({"prompt": "q", "chosen": "c", "rejected": "r"}, "dpo", system="be kind")
    assert plain.messages[0] == ("system", "be kind")


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (turns(U, A), "no_rejected_answer"),
        (["q", "a"], "no_rejected_answer"),
        ({"messages": [Q, GOOD], "rejected_response": None}, "no_rejected_answer"),
        ({"prompt": "q", "chosen": "a", "rejected": " "}, "no_rejected_answer"),
        ({"prompt": "q", "chosen": "a", "rejected": "\u200b"}, "no_rejected_answer"),
        ({"prompt": "q", "chosen": "", "rejected": "b"}, "no_answer"),
        ({"prompt": "q", "rejected": "b"}, "no_answer"),
        ({"chosen": "a", "rejected": "b"}, "no_question"),
        ({"prompt": "q", "chosen": "a", "rejected": " a "}, "chosen_equals_rejected"),
        ({"messages": [Q, GOOD], "rejected_messages": [Q, GOOD]}, "chosen_equals_rejected"),
        (
            {"messages": [Q, GOOD], "rejected_messages": [{"role": "user", "content": "p"}, BAD]},
            "rejected_other_prompt",
        ),
        (
            {"chosen": [Q, GOOD], "rejected": [Q, GOOD, Q, BAD]},
            "rejected_other_prompt",
        ),
        ({"prompt": "p", "chosen": [Q, GOOD], "rejected": [Q, BAD]}, "rejected_other_prompt"),
        ({"messages": [Q, GOOD], "chosen": "other", "rejected": "b"}, "ambiguous_columns"),
        ({"prompt": "q", "chosen": "a", "rejected": 7}, "non_text_content"),
        (
            {**turns(U, ("tool_call", CALL), ("tool", "r"), A), "rejected_response": "b"},
            "tool_turns_in_pair",
        ),
        (
            {"prompt": "q", "chosen": "a", "rejected": {"role": "tool_call", "content": CALL}},
            "tool_turns_in_pair",
        ),
    ],
)
def test_a_pair_that_cannot_be_compared_is_rejected(row: Any, code: str) -> None:
    assert refused(row, "dpo").code == code


def test_tool_turns_of_an_earlier_round_are_part_of_the_prompt() -> None:
    row = {**turns(U, ("tool_call", CALL), ("tool", "r"), A, U, A), "rejected_response": "b"}
    assert len(canonical(row, "dpo").messages) == 6


def test_a_rejected_answer_may_be_wrong_where_a_chosen_one_may_not() -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "<think>hm"}
    assert canonical(pair, "dpo").rejected_response == "<think>hm"
    assert refused({**pair, "chosen": "<think>hm", "rejected": "a"}, "dpo").code == "unclosed_think"


def test_the_rejected_answer_is_made_harmless_too() -> None:
    row = canonical({"prompt": "q", "chosen": "a", "rejected": "b<|im_end|> c\u200b"}, "dpo")
    assert row.rejected_response == "b< |im_end|> c"
    assert row.changes == {"control_tokens_neutralised", "invisible_stripped"}


@pytest.mark.parametrize("yes", [True, 1, 1.0, "1", "true", "True", " YES ", "y", "是", "好", "👍"])
def test_every_spelling_of_yes_is_a_label(yes: Any) -> None:
    row = canonical({"query": "q", "response": "a", "label": yes}, "kto")
    assert row.label is True
    assert row.as_row()["label"] is True
    assert row.changes == (set() if yes is True else {"label_read"})


@pytest.mark.parametrize(
    "no", [False, 0, 0.0, "0", "false", "False", "No", "否", "坏", "undesirable", "thumbs down"]
)
def test_every_spelling_of_no_is_a_label(no: Any) -> None:
    assert canonical({"query": "q", "response": "a", "kto_tag": no}, "kto").label is False


@pytest.mark.parametrize(
    ("label", "code"),
    [
        (None, "no_label"),
        (" ", "no_label"),
        ("maybe", "broken_label"),
        (2, "broken_label"),
        (-1, "broken_label"),
        ([True], "broken_label"),
    ],
)
def test_what_is_neither_yes_nor_no_is_rejected(label: Any, code: str) -> None:
    assert refused({"query": "q", "response": "a", "label": label}, "kto").code == code


def test_a_row_without_a_label_column_is_rejected() -> None:
    assert refused({"query": "q", "response": "a"}, "kto").code == "no_label"
    assert refused(["q", "a"], "kto").code == "no_label"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"prompt": [Q], "completion": [{"role": "assistant", "content": "a"}]},
        {"messages": [Q], "completion": "a"},
        turns(U, A),
    ],
)
def test_the_judged_answer_may_stand_apart(row: dict[str, Any]) -> None:
    assert said({**row, "label": True}, "kto") == [U, A]


def test_an_unwanted_answer_may_think_wrongly_but_not_be_blank() -> None:
    row = {"query": "q", "response": "<think>hm", "label": False}
    assert canonical(row, "kto").label is False
    assert refused({**row, "label": True}, "kto").code == "unclosed_think"
    assert refused({**row, "response": ""}, "kto").code == "blank_answer"


@pytest.mark.parametrize(
    ("row", "extra", "changes"),
    [
        ({"prompt": "q", "solution": "2"}, {"solution": "2"}, set()),
        ({"messages": [Q], "solution": "2"}, {"solution": "2"}, set()),
        ({"messages": [Q]}, {}, set()),
        ({"prompt": "q", "解答": "2"}, {"solution": "2"}, set()),
        ({"prompt": "q", "solution": 2}, {"solution": "2"}, {"solution_made_text"}),
        ({"problem": "q", "answer": "2"}, {"answer": "2", "solution": "2"}, {"answer_to_solution"}),
        (
            {"problem": "q", "solution": "1+1=2", "answer": "2"},
            {"solution": "1+1=2", "answer": "2"},
            set(),
        ),
        (turns(U, A), {"solution": "a"}, {"answer_to_solution"}),
        (
            turns(U, ("assistant", "<think>\nhm\n</think>\n\na")),
            {"solution": "a"},
            {"answer_to_solution"},
        ),
        ({**turns(U, A), "solution": "2"}, {"solution": "2"}, {"answer_dropped"}),
        (
            {"prompt": "q", "solution": "2", "level": 3, "tags": ["x"], "text": "note"},
            {"solution": "2", "level": 3, "tags": ["x"], "text": "note"},
            set(),
        ),
        (
            {"messages": [Q], "solution": "2", "Conversation": [], "id": None},
            {"solution": "2"},
            set(),
        ),
    ],
)
def test_a_prompt_is_kept_with_its_solution_and_all_its_columns(
    row: dict[str, Any], extra: dict[str, Any], changes: set[str]
) -> None:
    kept = canonical(row, "grpo")
    assert [tuple(message) for message in kept.messages] == [U]
    assert kept.extra == extra
    assert kept.changes == changes
    assert kept.as_row() == {"messages": [Q], **extra}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "q", "solution": " "}, "blank_answer"),
        ({"prompt": "q", "answer": "a", "output": "b"}, "ambiguous_columns"),
        ({"solution": "2"}, "no_question"),
        ({"messages": [GOOD]}, "no_question"),
        (turns(S), "no_question"),
        (turns(U, ("tool_call", CALL)), "no_question"),
        ({"prompt": " ", "solution": "2"}, "blank_question"),
        ({"prompt": "q", "solution": "\ud800"}, "invalid_characters"),
        ({"prompt": "q", "tags": ["\udcff"]}, "invalid_characters"),
        ({"prompt": "q", "images": ["x.png"]}, "unsupported_column"),
    ],
)
def test_a_row_that_is_no_prompt_for_rewards_is_rejected(row: Any, code: str) -> None:
    assert refused(row, "grpo").code == code


def test_values_that_json_has_no_form_for_become_text() -> None:
    row = canonical({"prompt": "q", "day": date(2026, 1, 2), "n": 2**80}, "grpo")
    assert row.extra == {"day": "2026-01-02", "n": 2**80}
    assert len(row.digest) == 16
