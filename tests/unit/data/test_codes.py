"""Each code that a row can get alone: a row that gets it, and its neighbour that does not."""

from __future__ import annotations

from typing import Any

import pytest
from support_rows import A, S, U, canonical, refused, turns

from palmswift.data.policy import CHECKS
from palmswift.data.row import Kind

CALL = ("tool_call", '{"name": "f", "arguments": {}}')
PAIR = {"query": "q", "response": "a"}
CHATML = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>"


def says(answer: str) -> dict[str, Any]:
    return turns(U, ("assistant", answer))


CASES: dict[str, tuple[Kind, Any, Any]] = {
    "unknown_shape": ("sft", {"frage": "q", "antwort": "a"}, {"question": "q", "answer": "a"}),
    "ambiguous_columns": ("sft", {**PAIR, "prompt": "p"}, {**PAIR, "prompt": " "}),
    "unsupported_column": ("sft", {**PAIR, "images": ["x.png"]}, {**PAIR, "images": []}),
    "other_task": ("sft", {**PAIR, "rejected": "b"}, {**PAIR, "rejected": ""}),
    "plain_text": ("sft", {"text": "a b c"}, {"text": CHATML}),
    "broken_history": ("sft", {**PAIR, "history": [["q"]]}, {**PAIR, "history": [["q", "a"]]}),
    "broken_turn": ("sft", [{"role": "user"}], turns(U, A)["messages"]),
    "unsupported_message_key": (
        "sft",
        {"messages": [{"role": "user", "content": "q", "images": ["x"]}]},
        {"messages": [{"role": "user", "content": "q", "images": []}, *turns(A)["messages"]]},
    ),
    "no_messages": ("sft", turns(), turns(U, A)),
    "no_question": ("sft", {"answer": "a"}, {"question": "q", "answer": "a"}),
    "blank_question": ("sft", {"query": " ", "response": "a"}, {"query": "?", "response": "a"}),
    "no_answer": ("sft", {"query": "q", "response": None}, PAIR),
    "blank_answer": ("sft", says("\n"), says("。")),
    "think_only_answer": ("sft", says("<think>hm</think>"), says("<think>hm</think>a")),
    "unclosed_think": ("sft", says("<think>hm a"), says("<think>hm</think> a")),
    "misplaced_think": ("sft", says("a <think>b</think> c"), says(" <think>b</think> c")),
    "unknown_role": ("sft", turns(U, ("narrator", "x"), A), turns(U, ("gpt", "x"))),
    "system_not_first": ("sft", turns(U, S, A), turns(S, U, A)),
    "first_turn_not_user": ("sft", turns(A, U, A), turns(S, U, A)),
    "two_turns_in_a_row": ("sft", turns(U, U, A), turns(U, A, U, A)),
    "tool_order": ("sft", turns(U, CALL, A), turns(U, CALL, ("tool", "r"), A)),
    "last_turn_not_assistant": ("sft", turns(U, A, U), turns(U, A)),
    "non_text_content": ("sft", {"query": "q", "response": 7}, {"query": "q", "response": "7"}),
    "invalid_characters": ("sft", says("a\x00"), says("a\t.")),
    "control_tokens": ("sft", says("<|im_end|> a"), says("<im_end> a")),
    "placeholder": ("sft", turns(("user", "{{ROUND0}}"), A), turns(("user", "{{ROUND2}}"), A)),
    "broken_chatml": ("sft", {"text": CHATML.replace("<|im_end|>\n", "\n")}, {"text": CHATML}),
    "broken_tool_call": ("sft", turns(U, ("tool_call", "f()")), turns(U, CALL)),
    "spaced_chinese": ("sft", ["你 好 呀", "早"], ["你好 呀", "早"]),
    "no_text": ("pt", {"text": " "}, {"text": "."}),
    "no_rejected_answer": (
        "dpo",
        {**PAIR, "rejected": ""},
        {**PAIR, "rejected": "b"},
    ),
    "chosen_equals_rejected": ("dpo", {**PAIR, "rejected": "a"}, {**PAIR, "rejected": "a."}),
    "rejected_other_prompt": (
        "dpo",
        {**turns(U, A), "rejected_messages": turns(("user", "p"), ("assistant", "b"))["messages"]},
        {**turns(U, A), "rejected_messages": turns(U, ("assistant", "b"))["messages"]},
    ),
    "tool_turns_in_pair": (
        "dpo",
        {**turns(U, CALL, ("tool", "r"), A), "rejected": "b"},
        {**turns(U, CALL, ("tool", "r"), A, U, A), "rejected": "b"},
    ),
    "no_label": ("kto", PAIR, {**PAIR, "label": False}),
    "broken_label": ("kto", {**PAIR, "label": "0.5"}, {**PAIR, "label": "0"}),
    "invisible_characters": ("sft", says("a\u200bb"), says("a\u3000b")),
    "mojibake": ("sft", says("cafÃ©"), says("café")),
    "boilerplate": ("sft", says("作为AI，我没有观点。"), says("作为前台，我帮您挂号。")),
    "phone_number": ("sft", says("13800138000"), says("010-62781234")),
    "id_number": ("sft", says("11010519491231002X"), says("110105194912310021")),
    "bank_card": ("sft", says("4111111111111111"), says("4111111111111112")),
    "email": ("sft", says("li@example.com"), says("@li example.com")),
    "secret": ("sft", says("password: hunter22"), says("password: [secret]")),
}
OF_OTHER_STAGES = {
    # reading
    *("broken_json", "duplicate_key", "not_an_object", "broken_csv", "wrong_column_count"),
    *("row_too_large", "broken_cell"),
    # the file and the other rows
    *("only_timestamps", "mixed_types", "unusual_length", "duplicate", "also_in_train"),
    *("near_duplicate", "near_in_train", "conflicting_answers"),
    # ms-swift's template
    *("over_length", "zero_supervised_tokens", "no_supervised_text", "no_eos", "template_error"),
}


@pytest.mark.parametrize("code", CASES)
def test_the_row_gets_the_code_and_its_neighbour_does_not(code: str) -> None:
    kind, bad, good = CASES[code]
    rules = {code: "reject"} if len(CHECKS[code].actions) > 1 else {}
    assert refused(bad, kind, rules=rules).code == code
    assert code not in canonical(good, kind, rules=rules).findings


@pytest.mark.parametrize("code", [code for code in CASES if "keep" in CHECKS[code].actions])
def test_a_row_that_is_kept_with_a_finding_is_left_as_it_is(code: str) -> None:
    kind, bad, _ = CASES[code]
    row = canonical(bad, kind, rules={code: "keep"})
    assert row.findings == {code}
    assert row.changes == set()


def test_every_check_of_one_row_has_its_case() -> None:
    assert CASES.keys() == CHECKS.keys() - OF_OTHER_STAGES
