from __future__ import annotations

from support_eval import arithmetic, prediction

from palmswift.eval.conversation import Case
from palmswift.eval.journal import RequestError
from palmswift.eval.scoring import score

CASE = arithmetic(1)[0]
ERROR = RequestError(kind="status", status=500, message="HTTP 500")


def test_thinking_is_no_part_of_the_graded_answer() -> None:
    [answer] = score([CASE], ["chrf"], [prediction(CASE, "<think>\n2?\n</think>\n\n1")], ["tuned"])
    assert (answer.answer, answer.reasoning) == ("1", "2?")
    assert (answer.exact, answer.passed, answer.chrf) == (True, True, 100.0)


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
