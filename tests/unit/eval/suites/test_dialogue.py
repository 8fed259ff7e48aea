from __future__ import annotations

from pathlib import Path
from typing import Any

from support_eval import QUICK

from palmswift.eval.asking.conversation import Case
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.evaluation import EvalRun, evaluate
from palmswift.eval.fake.server import FakeServer, Plan
from palmswift.eval.suites.dialogue import depths, with_followers
from palmswift.eval.suites.suite import Suite, load_suite

SUITE = """
name: talk
system: 你是客服。
cases:
  - id: book
    question: 我想挂号
    repeats: 2
    tags: [talk]
    request: {max_tokens: 17}
    assertions: [{kind: contains, value: 哪天}]
    then:
      - question: 周三
        assertions: [{kind: contains, value: 周三}]
      - question: 谢谢
        reference: 不客气
  - {id: other, question: 地址？}
"""


def suite(tmp_path: Path) -> Suite:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return load_suite(path)


def parrot(messages: list[dict[str, Any]]) -> Plan:
    replies = {"我想挂号": "<think>嗯</think>您想哪天来？", "周三": "周三好的", "谢谢": "不客气"}
    return Plan(replies.get(messages[-1]["content"], "听溪路"))


def run(server: FakeServer, suite: Suite, out: Path) -> Any:
    settings = EvalRun(concurrency=4, policy=QUICK)
    return evaluate(suite, [Endpoint(label="m", base_url=server.base_url)], out, settings)


def test_a_further_question_is_asked_after_the_models_own_answer_without_its_thinking(
    tmp_path: Path,
) -> None:
    with FakeServer(parrot) as server:
        report = run(server, suite(tmp_path), tmp_path / "out")
        asked = [body["messages"] for body in server.requests]
        limits = {body["max_tokens"] for body in server.requests if len(body["messages"]) > 2}
    assert limits == {17}
    last = [
        {"role": "system", "content": "你是客服。"},
        {"role": "user", "content": "我想挂号"},
        {"role": "assistant", "content": "您想哪天来？"},
        {"role": "user", "content": "周三"},
        {"role": "assistant", "content": "周三好的"},
        {"role": "user", "content": "谢谢"},
    ]
    assert asked.count(last) == 2
    assert len(asked) == 2 * 3 + 1
    answers = {case.id: case.answers for case in report.cases}
    assert [a.passed for a in answers["book+1"]] == [True, True]
    assert [a.exact for a in answers["book+2"]] == [True, True]
    assert report.summary("m", "talk").requests == 6


def test_the_same_command_again_asks_nothing_and_a_changed_answer_asks_what_follows_it(
    tmp_path: Path,
) -> None:
    with FakeServer(parrot) as server:
        run(server, suite(tmp_path), tmp_path / "out")
        before = len(server.requests)
        first = run(server, suite(tmp_path), tmp_path / "out")
        assert len(server.requests) == before
    assert not first.unanswered


def test_what_follows_an_answer_that_lacks_is_not_asked_and_says_why(tmp_path: Path) -> None:
    script = {"我想挂号": Plan(status=400, text="no"), "地址？": Plan("听溪路")}
    with FakeServer(script) as server:
        report = run(server, suite(tmp_path), tmp_path / "out")
    states = {case.id: [(a.state, a.reason) for a in case.answers] for case in report.cases}
    assert [state for state, _ in states["book"]] == ["error"] * 2
    assert states["book+1"] == [("not_asked", "the question before it has no answer")] * 2


def test_a_smaller_choice_keeps_conversations_whole(tmp_path: Path) -> None:
    cases = suite(tmp_path).cases
    assert [case.id for case in cases] == ["book", "book+1", "book+2", "other"]
    assert depths(cases) == {"book": 0, "book+1": 1, "book+2": 2, "other": 0}
    assert [c.id for c in with_followers(cases, [cases[0]])] == ["book", "book+1", "book+2"]
    assert [c.id for c in with_followers(cases, [cases[3]])] == ["other"]


def test_a_case_that_asks_other_fields_today_has_no_answer_yet(tmp_path: Path) -> None:
    from support_eval import prediction

    from palmswift.eval.suites.scoring import score

    case = Case.model_validate({"id": "a", "question": "q", "request": {"max_tokens": 9}})
    assert [a.state for a in score([case], [], [prediction(case, "x")], ["tuned"])] == ["not_asked"]
