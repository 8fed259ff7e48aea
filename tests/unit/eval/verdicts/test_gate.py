from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from support_eval import arithmetic, prediction, suite_of

from palmswift.eval.judging.judge import Judgement, text_hash
from palmswift.eval.judging.judge_report import Coefficient, JudgeReport, RubricReport
from palmswift.eval.reports.page import render
from palmswift.eval.reports.report import Against, build_report
from palmswift.eval.reports.table import bound_words, gate_words
from palmswift.eval.suites.summary import Measurement, Summary
from palmswift.eval.verdicts.gate import Gate, GateResult, Trust, hold

CASES = arithmetic(40)


def held(gate: dict[str, Any], *, base: int = 30, tuned: int = 28) -> GateResult:
    """A gate at `tuned`, with so many right answers of 40 at each."""
    rows = [
        prediction(case, str(n + 1) if n < right else "?", endpoint=label)
        for label, right in (("base", base), ("tuned", tuned))
        for n, case in enumerate(CASES)
    ]
    suite = suite_of(*CASES, gates=[Gate.model_validate({"endpoint": "tuned", **gate})])
    [result] = build_report(suite, rows).gates
    return result


@pytest.mark.parametrize(
    ("gate", "state", "why"),
    [
        ({"min": 0.7}, "passed", ""),
        ({"min": 0.71}, "failed", "0.7 is below 0.71"),
        ({"max": 0.7}, "passed", ""),
        ({"max": 0.69}, "failed", "0.7 is above 0.69"),
        ({"max_drop": 0.05}, "passed", ""),
        ({"max_drop": 0.04}, "failed", "worse by 0.05, above 0.04"),
        ({"non_inferior_to": "base", "margin": 0.2}, "passed", ""),
        ({"non_inferior_to": "base", "margin": 0.1}, "failed", "may be worse by 0.16"),
        ({"non_inferior_to": "base"}, "failed", "which 0.05 does not allow"),
        ({"non_inferior_to": "other"}, "not_checked", "no endpoint called other was tested"),
        ({"min": 0.5, "endpoint": "third"}, "not_checked", "no endpoint called third"),
        ({"min": 0.5, "tag": "free"}, "failed", "nothing to measure"),
        ({"min": 0.9, "max_drop": 0.01}, "failed", "below 0.9; worse by 0.05"),
    ],
)
def test_every_bound_holds_from_where_it_says(gate: dict[str, Any], state: str, why: str) -> None:
    result = held({"metric": "pass_rate", **gate})
    assert result.state == state
    assert why in "; ".join(result.reasons)


def test_bounds_against_the_base_are_not_asked_of_the_base_itself() -> None:
    suite = suite_of(*CASES, gates=[Gate(metric="pass_rate", max_drop=0.0)])
    rows = [prediction(case, "1", endpoint=label) for label in ("base", "tuned") for case in CASES]
    assert [gate.endpoint for gate in build_report(suite, rows).gates] == ["tuned"]
    alone = build_report(suite, [row for row in rows if row.endpoint == "base"])
    assert alone.gates == []


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"min": 0.9, "max": 0.1},
        {"max_drop": -0.1},
        {"min": 0.5, "margin": 0.1},
        {"non_inferior_to": "base", "endpoint": "base"},
        {"non_inferior_to": "base", "metric": "latency_p95"},
    ],
)
def test_a_gate_without_meaning_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Gate.model_validate({"metric": "pass_rate", **bad})


def summary(name: str, value: float, *, endpoint: str = "tuned", undecided: int = 0) -> Summary:
    """A summary that holds one measurement."""
    counts = dict.fromkeys(("requests", "answered", "no_answer", "errors", "not_asked"), 0)
    return Summary.model_validate(
        {
            "endpoint": endpoint,
            "tag": None,
            "cases": 9,
            **counts,
            "undecided": undecided,
            "metrics": {name: Measurement(value=value, n=9)},
        }
    )


@pytest.mark.parametrize(
    ("judges", "state", "why"),
    [
        ({"tone": Trust(0.41)}, "passed", ""),
        ({"tone": Trust(0.39)}, "failed", "agrees with people by 0.39, below 0.4"),
        ({"tone": Trust(None)}, "failed", "has not been compared with people"),
        ({"tone": Trust(0.9, "it likes the longer")}, "failed", "not decide: it likes the longer"),
        ({"accuracy": Trust(0.9)}, "failed", "has not been compared with people"),
        (None, "failed", "has not been compared with people"),
    ],
)
def test_a_judge_decides_only_when_it_agrees_with_people(
    judges: dict[str, Trust] | None, state: str, why: str
) -> None:
    gate = Gate(metric="judge.tone", min=3.0)
    [result] = hold([gate], [summary("judge.tone", 4.5)], judges=judges)
    assert result.state == state
    assert why in "; ".join(result.reasons)
    strict = gate.model_copy(update={"min_agreement": 0.6})
    [result] = hold([strict], [summary("judge.tone", 4.5)], judges={"tone": Trust(0.5)})
    assert result.state == "failed"


def test_a_pass_rate_with_replies_that_could_not_be_judged_does_not_pass_in_silence() -> None:
    gate = Gate(metric="pass_rate", min=0.5)
    [result] = hold([gate], [summary("pass_rate", 1.0, undecided=2)])
    assert (result.state, result.reasons) == ("failed", ["2 replies could not be judged"])
    [other] = hold([Gate(metric="chrf", min=1)], [summary("chrf", 9.0, undecided=2)])
    assert other.state == "passed"


def test_a_drop_of_what_is_better_when_lower_is_a_rise() -> None:
    gate = Gate(metric="latency_p95", max_drop=0.1)
    found = [
        hold(
            [gate],
            [summary("latency_p95", 1.0, endpoint="base"), summary("latency_p95", after)],
            base="base",
        )[0].state
        for after in (0.5, 1.1, 1.2)
    ]
    assert found == ["passed", "passed", "failed"]
    [lacking] = hold(
        [gate], [summary("chrf", 1.0, endpoint="base"), summary("latency_p95", 1.0)], base="base"
    )
    assert lacking.reasons == ["nothing to measure at the base"]


@pytest.mark.parametrize("other", ["zeta", "alpha"])
def test_a_gate_is_held_against_the_endpoint_it_names_among_others(other: str) -> None:
    summaries = [summary("chrf", 9.0, endpoint=other), summary("chrf", 5.0, endpoint="tuned")]
    [result] = hold([Gate(metric="chrf", min=6, endpoint="".join(("tu", "ned")))], summaries)
    assert (result.endpoint, result.observed, result.state) == ("tuned", 5.0, "failed")


def test_gates_are_told_in_words() -> None:
    assert bound_words(Gate(metric="pass_rate", tag="x", min=0.9)) == "pass_rate of x >= 90.0%"
    words = bound_words(Gate(metric="chrf", max_drop=2, non_inferior_to="base", margin=1))
    assert words == (
        "chrf of all cases worse than the base by at most 2.0 and "
        "shown not to be worse than base by 1.0"
    )
    assert gate_words(held({"metric": "pass_rate", "min": 0.9})) == "70.0% of 40"
    assert "95 % interval of 40 cases" in gate_words(
        held({"metric": "pass_rate", "non_inferior_to": "base"})
    )


def judging(agreement: float, rating: int) -> JudgeReport:
    """What a judge said of the answers "1" to the first two cases."""
    kappa = Coefficient(value=agreement, low=None, high=None, n=30)
    said = [
        Judgement.model_validate(
            {
                "endpoint": "tuned",
                "case": case.id,
                "repeat": 0,
                "rubric": "tone",
                "answer_hash": text_hash("1"),
                "state": "rated",
                "rating": rating,
                "reason": "",
            }
        )
        for case in CASES[:2]
    ]
    return JudgeReport(
        judge="j",
        language="en",
        rubrics=[
            RubricReport(
                rubric="tone",
                with_people=kappa,
                among_people=None,
                can_gate=agreement >= 0.4,
                why=f"weighted kappa with people is {agreement}",
            )
        ],
        scores=[],
        pairs=[],
        diagnostics=[],
        warnings=[],
        judgements=said,
        comparisons=[],
    )


@pytest.mark.parametrize(("agreement", "state"), [(0.7, "passed"), (0.2, "failed")])
def test_a_judges_ratings_and_its_agreement_reach_the_gates_of_a_report(
    agreement: float, state: str
) -> None:
    suite = suite_of(*CASES[:2], gates=[Gate(metric="judge.tone", min=3)])
    rows = [prediction(case, "1") for case in CASES[:2]]
    report = build_report(suite, rows, (), Against(judges=judging(agreement, 4)))
    [gate] = report.gates
    assert (gate.state, gate.observed) == (state, 4.0)
    assert [info.agreement for info in report.judges] == [agreement]
    assert "agreement with people" in render(report)
