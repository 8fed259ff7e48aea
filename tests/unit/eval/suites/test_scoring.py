from __future__ import annotations

from typing import Any

from support_eval import arithmetic, prediction

from palmswift.eval.asking.conversation import Case
from palmswift.eval.asking.journal import RequestError
from palmswift.eval.measures.metrics import TextMetric
from palmswift.eval.suites.scoring import ScoredAnswer, score
from palmswift.eval.suites.summary import summarise

CASE = arithmetic(1)[0]
ERROR = RequestError(kind="status", status=500, message="HTTP 500")


def test_thinking_is_no_part_of_the_graded_answer() -> None:
    [answer] = score([CASE], ["chrf"], [prediction(CASE, "<think>\n2?\n</think>\n\n1")], ["tuned"])
    assert (answer.answer, answer.reasoning) == ("1", "2?")
    assert (answer.exact, answer.passed, answer.chrf) == (True, True, 100.0)


def test_scores_stand_in_one_order_so_that_the_same_answers_make_the_same_bytes() -> None:
    asked: list[TextMetric] = ["chrf", "rouge", "similarity"]
    [answer] = score([CASE], asked, [prediction(CASE, "1")], ["tuned"])
    names = ["exact_match", "chrf", "rouge_1", "rouge_2", "rouge_l", "similarity"]
    assert [name for name in answer.scores if name in names] == names


def test_thinking_that_never_ended_is_no_answer_and_fails_even_lenient_demands() -> None:
    case = Case.model_validate(
        {"id": "a", "question": "q", "assertions": [{"kind": "not_contains", "value": "x"}]}
    )
    [answer] = score([case], ["chrf"], [prediction(case, "<think>hm")], ["tuned"])
    assert (answer.state, answer.reason, answer.passed) == (
        "no_answer",
        "thinking truncated",
        False,
    )


def test_an_error_is_neither_right_nor_wrong() -> None:
    [answer] = score([CASE], ["chrf"], [prediction(CASE, None, error=ERROR)], ["tuned"])
    assert (answer.state, answer.exact, answer.passed) == ("error", None, None)


def test_a_later_reply_replaces_an_error_but_a_later_error_no_reply() -> None:
    good, bad = prediction(CASE, "1"), prediction(CASE, None, error=ERROR)
    assert [a.state for a in score([CASE], [], [bad, good], ["tuned"])] == ["answered"]
    assert [a.state for a in score([CASE], [], [good, bad], ["tuned"])] == ["answered"]


def test_an_answer_to_a_question_that_was_since_changed_does_not_count() -> None:
    changed = CASE.model_copy(update={"question": "0+2?"})
    assert [a.state for a in score([changed], [], [prediction(CASE, "1")], ["tuned"])] == [
        "not_asked"
    ]


def test_every_repeat_of_every_label_has_its_place() -> None:
    twice = CASE.model_copy(update={"repeats": 2})
    rows = [prediction(twice, "1", repeat=1), prediction(twice, "2", endpoint="base")]
    found = score([twice], [], rows, ["base", "tuned"])
    assert [(a.endpoint, a.repeat, a.state) for a in found] == [
        ("base", 0, "answered"),
        ("base", 1, "not_asked"),
        ("tuned", 0, "not_asked"),
        ("tuned", 1, "answered"),
    ]


def judged(assertions: list[dict[str, Any]], answer: str, **fields: Any) -> ScoredAnswer:
    case = Case.model_validate({"id": "a", "question": "q", "assertions": assertions, **fields})
    [scored] = score([case], ["rouge", "diversity"], [prediction(case, answer)], ["tuned"])
    return scored


def test_a_score_is_the_weight_of_what_holds_and_passing_takes_all() -> None:
    demands: list[dict[str, Any]] = [
        {"kind": "contains", "value": "a", "weight": 3},
        {"kind": "contains", "value": "z"},
    ]
    answer = judged(demands, "abc")
    assert (answer.passed, answer.score, answer.undecided) == (False, 0.75, False)
    assert judged(demands, "az").score == 1.0


def test_what_cannot_be_evaluated_leaves_an_answer_undecided_unless_another_demand_failed() -> None:
    unknown: dict[str, Any] = {"kind": "length", "unit": "tokens", "max": 5}
    undecided = judged([unknown, {"kind": "contains", "value": "a"}], "a")
    assert (undecided.passed, undecided.undecided, undecided.score) == (None, True, 1.0)
    assert "tokens" in (undecided.reason or "")
    both = judged([unknown, {"kind": "python", "function": "gone.py:f"}], "a")
    assert "tokens" in (both.reason or ""), "the first that could not be evaluated is the reason"
    failed = judged([unknown, {"kind": "contains", "value": "z"}], "a")
    assert (failed.passed, failed.undecided) == (False, False)


def test_undecided_answers_are_counted_and_in_no_pass_rate() -> None:
    unknown: dict[str, Any] = {"kind": "length", "unit": "tokens", "max": 5}
    cases = [
        Case.model_validate({"id": "u", "question": "q", "assertions": [unknown]}),
        arithmetic(1)[0],
    ]
    rows = [prediction(cases[0], "x"), prediction(cases[1], "1")]
    [summary] = [
        s
        for s in summarise(cases, [], score(cases, [], rows, ["tuned"]), ["tuned"])
        if s.tag is None
    ]
    assert summary.undecided == 1
    assert (summary.metrics["pass_rate"].value, summary.metrics["pass_rate"].n) == (1.0, 1)


def test_each_metric_counts_the_reference_that_it_likes_best() -> None:
    answer = judged([{"kind": "exact"}], "休诊", reference="不开门", references=["休诊"])
    assert answer.passed
    assert answer.scores["exact_match"] == 1.0
    assert answer.scores["rouge_l"] == 100.0


def test_thinking_that_never_ended_has_the_lowest_scores_and_none_where_low_is_good() -> None:
    answer = judged([], "<think>hm", reference="休诊")
    assert answer.scores["rouge_1"] == 0.0
    assert "repetition" not in answer.scores


def test_a_reply_that_only_calls_a_tool_is_an_answer() -> None:
    case = Case.model_validate(
        {"id": "a", "question": "q", "assertions": [{"kind": "tool_call", "name": "book"}]}
    )
    calls = [{"function": {"name": "book", "arguments": "{}"}}]
    [answer] = score([case], [], [prediction(case, None, tool_calls=calls)], ["tuned"])
    assert (answer.state, answer.passed) == ("answered", True)


def test_a_reports_own_json_is_as_undecided_as_what_it_was_written_from() -> None:
    unknown: dict[str, Any] = {"kind": "length", "unit": "tokens", "max": 5}
    answer = judged([unknown], "a")
    assert ScoredAnswer.model_validate_json(answer.model_dump_json()).undecided


def test_tokens_are_those_that_the_server_counted_and_no_attempt_is_made_of_what_is_not_asked() -> (
    None
):
    demand = {"kind": "length", "unit": "tokens", "max": 5}
    case = Case.model_validate({"id": "a", "question": "q", "assertions": [demand]})
    for tokens, passed in ((5, True), (6, False), ("many", None)):
        row = prediction(case, "a").model_copy(update={"usage": {"completion_tokens": tokens}})
        assert [a.passed for a in score([case], [], [row], ["tuned"])] == [passed]
    assert [a.attempts for a in score([case], [], [], ["tuned"])] == [0]
