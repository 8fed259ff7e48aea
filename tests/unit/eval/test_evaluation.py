from __future__ import annotations

import json
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support_eval import QUICK, arithmetic, suite_of, sums

from palmswift.errors import ChildError, InputError
from palmswift.eval.asking.endpoint import Endpoint
from palmswift.eval.asking.engine import Sampling
from palmswift.eval.asking.journal import read_journal
from palmswift.eval.evaluation import EvalRun, evaluate
from palmswift.eval.fake.server import FakeServer, Plan
from palmswift.eval.verdicts.gate import Gate

RUN = EvalRun(policy=QUICK)
CASES = arithmetic(30)
SUITE = suite_of(*CASES, gates=[Gate(metric="exact_match", tag="sums", endpoint="tuned", min=0.9)])
RIGHT = {question: Plan(answer) for question, answer in sums(30).items()}


def at(server: FakeServer, label: str = "tuned") -> list[Endpoint]:
    return [Endpoint(label=label, base_url=server.base_url)]


def test_base_and_tuned_meet_in_one_report_of_one_folder(tmp_path: Path) -> None:
    with FakeServer(RIGHT) as tuned, FakeServer() as base:
        evaluate(SUITE, at(tuned), tmp_path, RUN)
        report = evaluate(SUITE, at(base, "base"), tmp_path, RUN)
    assert report.labels == ["base", "tuned"]
    shares = [report.summary(x, "sums").metrics["exact_match"].value for x in report.labels]
    assert shares == [0.0, 1.0]
    assert report.verdict == "passed"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("predictions.jsonl", "predictions.fingerprints.json"),
        *(f"evaluation_report.{kind}" for kind in ("json", "csv", "html")),
        *("evaluation_summary.md", "evaluation_junit.xml"),
    }


def test_what_was_answered_is_not_asked_again_and_errors_are(tmp_path: Path) -> None:
    first = {**RIGHT, "3+1?": Plan(status=400), "7+1?": Plan(body=b"garbage")}
    with FakeServer(first) as server:
        report = evaluate(SUITE, at(server), tmp_path, RUN)
    assert (report.verdict, report.unanswered) == ("incomplete", 2)
    notes: list[str] = []
    with FakeServer(RIGHT) as server:
        report = evaluate(SUITE, at(server), tmp_path, RUN, note=notes.append)
        assert sorted(server.questions) == ["3+1?", "7+1?"]
    assert report.verdict == "passed"
    assert "28 answers were in" in notes[0]


def test_other_settings_are_other_requests_and_each_run_reports_its_own(tmp_path: Path) -> None:
    longer = RUN.model_copy(update={"sampling": Sampling(max_tokens=9)})
    with FakeServer(RIGHT) as right, FakeServer() as wrong:
        first = evaluate(SUITE, at(right), tmp_path, RUN)
        other = evaluate(SUITE, at(wrong), tmp_path, longer)
        again = evaluate(SUITE, at(right), tmp_path, RUN)
        assert (len(right.requests), len(wrong.requests)) == (30, 30)
    assert [report.verdict for report in (first, other, again)] == ["passed", "failed", "passed"]


def test_fresh_asks_again_and_keeps_the_old_answers_aside(tmp_path: Path) -> None:
    with FakeServer() as server:
        evaluate(SUITE, at(server), tmp_path, RUN)
    with FakeServer(RIGHT) as server:
        report = evaluate(SUITE, at(server), tmp_path, RUN.model_copy(update={"fresh": True}))
    assert report.verdict == "passed"
    [kept] = tmp_path.glob("predictions.until-*.jsonl")
    assert len(list(read_journal(kept))) == 30


def test_scoring_alone_sends_nothing(tmp_path: Path) -> None:
    with FakeServer(RIGHT) as server:
        first = evaluate(SUITE, at(server), tmp_path, RUN)
    again = evaluate(SUITE, [], tmp_path, RUN)
    assert again.summaries == first.summaries


def test_requests_in_flight_never_exceed_the_concurrency(tmp_path: Path) -> None:
    with FakeServer(default=Plan(delay=0.02)) as server:
        evaluate(SUITE, at(server), tmp_path, RUN.model_copy(update={"concurrency": 3}))
        assert 2 <= server.most_at_once <= 3


def test_repeats_are_asked_as_often_as_they_say(tmp_path: Path) -> None:
    case = CASES[0].model_copy(update={"repeats": 3})
    plans = [Plan("1"), Plan("1"), Plan("2")]
    with FakeServer({"0+1?": plans}) as server:
        report = evaluate(suite_of(case), at(server), tmp_path, RUN)
    measured = report.summary("tuned").metrics["exact_match"]
    assert (measured.count, measured.n) == (2, 3)


def test_a_quick_look_asks_a_part_and_says_so(tmp_path: Path) -> None:
    with FakeServer(RIGHT) as server:
        report = evaluate(SUITE, at(server), tmp_path, RUN.model_copy(update={"max_samples": 5}))
        assert len(server.requests) == 5
    assert (len(report.cases), report.cases_in_suite) == (5, 30)


def test_a_server_that_is_down_leaves_nothing_behind(tmp_path: Path) -> None:
    with FakeServer() as server:
        gone = at(server)
    with pytest.raises(ChildError):
        evaluate(SUITE, gone, tmp_path / "out", RUN)
    assert not (tmp_path / "out").exists()


def test_a_server_that_fails_every_request_is_an_error_with_a_report(tmp_path: Path) -> None:
    with FakeServer(default=Plan(status=400)) as server, pytest.raises(ChildError, match="all 30"):
        evaluate(SUITE, at(server), tmp_path, RUN)
    assert (tmp_path / "evaluation_report.html").exists()


def test_a_server_that_goes_away_is_not_asked_to_the_end(tmp_path: Path) -> None:
    dying = {**{question: Plan(drop="before") for question in RIGHT}, "0+1?": Plan("1")}
    with FakeServer(dying) as server:
        report = evaluate(SUITE, at(server), tmp_path, RUN.model_copy(update={"concurrency": 1}))
        assert len(server.requests) == 1 + 5 * QUICK.attempts
    assert (report.verdict, report.summary("tuned").not_asked) == ("incomplete", 24)
    with FakeServer(RIGHT) as server:
        assert evaluate(SUITE, at(server), tmp_path, RUN).verdict == "passed"


def test_forgetting_that_was_measured_in_the_folder_makes_the_verdict_unsafe(
    tmp_path: Path,
) -> None:
    numbers = {"n": 40, "base": 1.0, "tuned": 1.3, "change": 0.3, "low": 0.2, "high": 0.4}
    document = {
        "models": [{"label": "base"}, {"label": "tuned"}],
        "drift": [{"tag": None, **numbers, "verdict": "forgetting"}],
    }
    (tmp_path / "drift.json").write_text(json.dumps(document), encoding="utf-8")
    with FakeServer(RIGHT) as base, FakeServer(RIGHT) as tuned:
        evaluate(SUITE, at(base, "base"), tmp_path, RUN)
        report = evaluate(SUITE, at(tuned, "tuned"), tmp_path, RUN)
    [verdict] = report.comparisons
    assert verdict.word == "unsafe"
    assert "+0.30 bits per byte more" in verdict.alarms[0]
    (tmp_path / "drift.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="not the numbers of"):
        evaluate(SUITE, [], tmp_path, RUN)


def test_streamed_replies_are_kept_with_their_times_and_count_as_the_same_requests(
    tmp_path: Path,
) -> None:
    streamed = RUN.model_copy(update={"sampling": RUN.sampling.model_copy(update={"stream": True})})
    with FakeServer(RIGHT) as server:
        evaluate(SUITE, at(server), tmp_path, streamed)
        asked = len(server.requests)
        evaluate(SUITE, at(server), tmp_path, RUN)
        assert len(server.requests) == asked
    rows = list(read_journal(tmp_path / "predictions.jsonl"))
    assert all(row.timings is not None and row.timings.first_content for row in rows)
    assert not any("stream" in row.request for row in rows)


def test_a_server_that_comes_back_is_looked_at_before_it_is_asked_on(tmp_path: Path) -> None:
    """A restart is how another model comes to stand behind an address."""
    waiting = QUICK.model_copy(update={"attempts": 200, "backoff": 0.1, "longest_wait": 0.1})
    run = RUN.model_copy(update={"policy": waiting, "concurrency": 2})
    first = FakeServer(RIGHT).__enter__()
    plans = dict(RIGHT)
    restarted: list[FakeServer] = []

    def half_way(messages: list[dict[str, Any]]) -> Plan:
        if len(first.requests) == 5:
            Thread(target=restart).start()
        return plans[messages[-1]["content"]]

    def restart() -> None:
        first.__exit__(None, None, None)
        restarted.append(FakeServer(RIGHT, weights="other", port=first.port).__enter__())

    first.script = half_way
    try:
        with pytest.raises(ChildError, match="the model changed while it was asked"):
            evaluate(SUITE, at(first), tmp_path, run)
        assert 0 < len(restarted[0].requests) <= 2 * run.concurrency
    finally:
        restarted[0].__exit__(None, None, None)
