from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from palmswift.eval.suites.assertions import KINDS, Assertion, AssertionResult
from palmswift.eval.suites.checking import Subject, check

ADAPTER: TypeAdapter[Assertion] = TypeAdapter(Assertion)
PHONE = "13800138000"
CALL = {"function": {"name": "book", "arguments": '{"day": "周三", "people": 2}'}}
OTHER_CALL = {"function": {"name": "book", "arguments": "not json"}}


def held(assertion: dict[str, Any], answer: str, *references: str, **known: Any) -> AssertionResult:
    return check(ADAPTER.validate_python(assertion), Subject(answer, references, **known))


GOOD_AND_BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "exact"}, " 周一休诊。\n", "周一休诊"),
    ({"kind": "exact", "value": "Closed", "ignore_case": True}, "closed", "close"),
    ({"kind": "contains", "value": "休诊"}, "周一休诊。", "周一开诊。"),
    ({"kind": "contains", "value": "CLOSED", "ignore_case": True}, "We're closed", "open"),
    ({"kind": "contains_any", "values": ["8点", "八点"]}, "到八点", "到九点"),
    ({"kind": "contains_any", "values": ["eight", "8"]}, "until eight", "until nine"),
    ({"kind": "contains_all", "values": ["8", "点"]}, "8点", "8 o'clock"),
    ({"kind": "contains_all", "values": ["8", "clock"]}, "8 o'clock", "8点"),
    ({"kind": "not_contains", "value": "药"}, "请来面诊", "吃药"),
    ({"kind": "not_contains", "value": "drug"}, "see a doctor", "take this drug"),
    ({"kind": "regex", "pattern": r"20[:：]00"}, "到20：00", "到20-00"),
    ({"kind": "regex", "pattern": r"[a-z ]+", "whole": True}, "all small", "Not small"),
    ({"kind": "json"}, '好的：```json\n{"天": 3}\n```', "没有"),
    ({"kind": "json"}, 'Sure: {"days": [1, 2]} as asked', '{"a": 1} or {"b": 2}'),
    ({"kind": "json", "strict": True}, "[1]", "x [1]"),
    (
        {"kind": "json_schema", "schema": {"required": ["天"]}},
        '{"天": 3}',
        '{"日": 3}',
    ),
    (
        {"kind": "json_schema", "schema": {"type": "object", "properties": {"n": {"minimum": 1}}}},
        'Here: {"n": 1}',
        '{"n": 0}',
    ),
    ({"kind": "number", "value": 108}, "打九折，一共一百零八元", "一共108.5元"),
    ({"kind": "number", "value": 3.14, "tolerance": 0.01}, "about 3.1415", "about 3.2"),
    ({"kind": "number", "value": 100, "relative": 0.05}, "one hundred and four", "106"),
    ({"kind": "number", "value": 8, "which": "first"}, "8 of 10", "10 of 8"),
    ({"kind": "choice", "value": "B"}, "答案是B，因为A不对", "A"),
    ({"kind": "choice", "value": "C"}, "The answer is (C).", "A or C"),
    ({"kind": "length", "max": 4}, "一二三四", "一二三四五"),
    ({"kind": "length", "unit": "words", "min": 3, "max": 3}, "one two three", "one two"),
    ({"kind": "length", "unit": "words", "max": 2}, "针灸推拿", "针灸 推拿 价格"),
    ({"kind": "length", "unit": "lines", "min": 2}, "一\n\n二", "一 二"),
    ({"kind": "max_chars", "value": 2}, " 好的 ", "好的。"),
    ({"kind": "max_chars", "value": 2}, "ok", "okay"),
    ({"kind": "min_chars", "value": 2}, "好的", " 好 "),
    ({"kind": "min_chars", "value": 2}, "ok", "k"),
    ({"kind": "language", "value": "zh"}, "我们用 WeChat 预约，周一休诊。", "We are closed."),
    ({"kind": "language", "value": "en"}, "We are closed on Monday.", "周一休诊"),
    ({"kind": "refusal"}, "抱歉，我无法提供这方面的帮助。", "当然可以，步骤如下。"),
    ({"kind": "refusal"}, "I'm sorry, but I can't help with that.", "Sure, here is how."),
    ({"kind": "no_pii"}, "请拨400-000-0018", f"他的手机是{PHONE}"),
    ({"kind": "no_pii", "allow": ["a@b.cn"]}, "write to a@b.cn", "write to x@b.cn"),
    ({"kind": "no_secrets"}, "密码不能告诉您", "密码是hunter2secret9"),
    (
        {"kind": "no_secrets", "values": ["canary-17"]},
        "I keep that to myself",
        "It is C a n a r y - 1 7",
    ),
    ({"kind": "similarity", "min": 0.8, "value": "周一全天休诊"}, "周一整天休诊", "周二"),
    ({"kind": "similarity", "min": 0.6}, "周一休诊", "Monday"),
    ({"kind": "metric", "name": "rouge_l", "min": 60}, "周一休诊", "周二开门到八点"),
    ({"kind": "metric", "name": "repetition", "max": 0.2}, "no word comes back", "a b c d " * 9),
    ({"kind": "all", "of": [{"kind": "contains", "value": "周"}]}, "周一", "一"),
    (
        {"kind": "any", "of": [{"kind": "exact", "value": "a"}, {"kind": "exact", "value": "b"}]},
        "b",
        "c",
    ),
    (
        {
            "kind": "at_least",
            "count": 2,
            "of": [{"kind": "contains", "value": word} for word in ("医", "药", "ok")],
        },
        "医院 ok",
        "医院",
    ),
]


@pytest.mark.parametrize(("assertion", "good", "bad"), GOOD_AND_BAD)
def test_each_kind_tells_a_good_answer_from_a_bad_one_and_not_turns_it_round(
    assertion: dict[str, Any], good: str, bad: str
) -> None:
    assert held(assertion, good, "周一休诊。").state == "passed"
    assert held(assertion, bad, "周一休诊。").state == "failed"
    turned = {**assertion, "not": True}
    assert held(turned, good, "周一休诊。").state == "failed"
    assert held(turned, bad, "周一休诊。").state == "passed"


@pytest.mark.parametrize(
    ("assertion", "known", "state"),
    [
        ({"kind": "tool_call", "name": "book"}, {"tool_calls": [CALL]}, "passed"),
        (
            {"kind": "tool_call", "name": "book", "arguments": {"day": "周三"}},
            {"tool_calls": [OTHER_CALL, CALL]},
            "passed",
        ),
        (
            {"kind": "tool_call", "name": "book", "arguments": {"people": 2, "day": "周三"}},
            {"tool_calls": [CALL]},
            "passed",
        ),
        (
            {
                "kind": "tool_call",
                "name": "book",
                "arguments": {"day": "周三"},
                "exact_arguments": True,
            },
            {"tool_calls": [CALL]},
            "failed",
        ),
        (
            {"kind": "tool_call", "name": "book", "arguments": {"day": "Monday"}},
            {"tool_calls": [CALL]},
            "failed",
        ),
        ({"kind": "tool_call", "name": "book"}, {}, "failed"),
        ({"kind": "latency", "max": 2}, {"seconds": 1.5}, "passed"),
        ({"kind": "latency", "max": 2}, {"seconds": 2.5}, "failed"),
        ({"kind": "latency", "max": 2}, {}, "error"),
        ({"kind": "finish_reason", "value": "stop"}, {"finish_reason": "stop"}, "passed"),
        ({"kind": "finish_reason", "value": "stop"}, {"finish_reason": "length"}, "failed"),
        ({"kind": "finish_reason", "value": "stop"}, {}, "error"),
        ({"kind": "length", "unit": "tokens", "max": 9}, {"tokens": 9}, "passed"),
        ({"kind": "length", "unit": "tokens", "max": 9}, {"tokens": 10}, "failed"),
        ({"kind": "length", "unit": "tokens", "max": 9}, {}, "error"),
        (
            {"kind": "length", "unit": "tokens", "max": 9},
            {"tokens": 9, "reasoning": "hm"},
            "error",
        ),
    ],
)
def test_what_stands_beside_the_text_is_judged_where_it_is_known(
    assertion: dict[str, Any], known: dict[str, Any], state: str
) -> None:
    assert held(assertion, "", **known).state == state


@pytest.mark.parametrize(
    "assertion",
    [
        {"kind": "exact"},
        {"kind": "exact", "not": True},
        {"kind": "similarity", "min": 0},
        {"kind": "metric", "name": "chrf", "min": 0},
        {"kind": "json_schema", "schema": {"$ref": "https://example.invalid/s.json"}},
        {"kind": "python", "function": "f.py:check"},
        {"kind": "all", "of": [{"kind": "exact"}]},
        {"kind": "any", "of": [{"kind": "exact"}, {"kind": "contains", "value": "没有"}]},
    ],
)
def test_what_cannot_be_evaluated_is_an_error_with_its_reason(assertion: dict[str, Any]) -> None:
    result = held(assertion, "[1]")
    assert result.state == "error"
    assert result.detail


def test_a_groups_error_counts_only_where_it_could_turn_the_outcome() -> None:
    error, yes = {"kind": "exact"}, {"kind": "contains", "value": "a"}
    no = {"kind": "contains", "value": "z"}
    assert held({"kind": "any", "of": [error, yes]}, "a").state == "passed"
    assert held({"kind": "all", "of": [error, no]}, "a").state == "failed"
    assert held({"kind": "at_least", "count": 2, "of": [error, no, yes]}, "a").state == "error"
    assert held({"kind": "at_least", "count": 2, "of": [error, no, no]}, "a").state == "failed"
    nested = held({"kind": "all", "of": [{"kind": "any", "of": [no, yes]}, yes]}, "a")
    assert nested.state == "passed"
    assert [part.kind for part in nested.parts] == ["any", "contains"]


def test_any_of_several_references_will_do() -> None:
    assert held({"kind": "exact"}, "休诊", "不接诊", "休诊").passed
    assert held({"kind": "metric", "name": "rouge_l", "min": 99}, "休诊", "不", "休诊").passed


def test_a_leak_is_told_without_repeating_it() -> None:
    result = held({"kind": "no_pii"}, f"打他手机{PHONE}")
    assert PHONE not in result.model_dump_json()


@pytest.mark.parametrize(
    "assertion",
    [
        {"kind": "contians", "value": "a"},
        {"kind": "contains"},
        {"kind": "contains", "value": ""},
        {"kind": "contains_any", "values": []},
        {"kind": "regex", "pattern": "("},
        {"kind": "max_chars", "value": -1},
        {"kind": "exact", "text": "a"},
        {"kind": "length"},
        {"kind": "length", "min": 3, "max": 2},
        {"kind": "choice", "value": "E"},
        {"kind": "number", "value": float("nan")},
        {"kind": "json_schema", "schema": {"type": "nothing"}},
        {"kind": "metric", "name": "bertscore", "min": 1},
        {"kind": "metric", "name": "chrf"},
        {"kind": "python", "function": "check"},
        {"kind": "at_least", "count": 2, "of": [{"kind": "refusal"}]},
        {"kind": "all", "of": []},
        {"kind": "refusal", "weight": 0},
        {"kind": "no_pii", "kinds": []},
    ],
)
def test_a_malformed_assertion_is_refused(assertion: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(assertion)


def test_every_kind_is_documented_once_and_tried_here() -> None:
    tried = {assertion["kind"] for assertion, _, _ in GOOD_AND_BAD}
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in KINDS}
    elsewhere = {"tool_call", "latency", "finish_reason", "python", "bertscore"}
    assert kinds - tried == elsewhere
