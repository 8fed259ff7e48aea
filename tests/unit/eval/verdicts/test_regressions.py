"""Which cases got worse, and in what order they are shown."""

from __future__ import annotations

import pytest
from support_eval import prediction, suite_of

from palmswift.eval.asking.conversation import Case
from palmswift.eval.reports.report import EvaluationReport, build_report
from palmswift.eval.verdicts.regressions import changes, regressions

EXACT = [{"kind": "exact"}]


def case(name: str, **fields: object) -> Case:
    return Case.model_validate({"id": name, "question": f"{name}?", "reference": "对", **fields})


def report(*told: tuple[Case, str | None, str | None]) -> EvaluationReport:
    """What base and tuned answered; None: nothing came."""
    rows = [
        prediction(one, answer, endpoint=label)
        for one, base, tuned in told
        for label, answer in (("base", base), ("tuned", tuned))
        if answer is not None
    ]
    return build_report(suite_of(*(one for one, _, _ in told)), rows, labels=["base", "tuned"])


def test_what_passed_and_fails_is_a_regression_and_a_gain_is_none() -> None:
    lost, won, same = (case(name, assertions=EXACT) for name in ("lost", "won", "same"))
    found = report((lost, "对", "错"), (won, "错", "对"), (same, "错", "错"))
    assert [(one.case.id, one.drop) for one in changes(found, "base", "tuned")] == [
        ("lost", 1.0),
        ("won", -1.0),
    ]
    [worse] = regressions(found, "base", "tuned")
    assert (worse.case.id, worse.measure) == ("lost", "pass_rate")


def test_what_nobody_judges_is_compared_by_its_score_and_the_worst_comes_first() -> None:
    slight, bad = case("slight", reference="周一休诊。"), case("bad", reference="周一休诊。")
    found = report((slight, "周一休诊。", "周一休诊"), (bad, "周一休诊。", "八点"))
    worse = regressions(found, "base", "tuned")
    assert [one.case.id for one in worse] == ["bad", "slight"]
    assert all(0 < one.drop <= 1 for one in worse)


@pytest.mark.parametrize("reference", ["对", None])
def test_what_one_of_them_was_not_asked_or_nothing_measures_is_left_out(
    reference: str | None,
) -> None:
    open_ended = case("open", reference=None)
    unasked = case("unasked", reference=reference)
    found = report((open_ended, "一", "二"), (unasked, "对", None))
    assert changes(found, "base", "tuned") == []


def test_a_measure_of_which_less_is_better_falls_by_rising() -> None:
    found = report((case("dearer"), "对", "对"))
    [row] = found.cases
    values = {"base": 1.0, "tuned": 1.5}
    answers = [
        answer.model_copy(update={"scores": {"nats_per_token": values[answer.endpoint]}})
        for answer in row.answers
    ]
    dearer = found.model_copy(update={"cases": [row.model_copy(update={"answers": answers})]})
    [worse] = regressions(dearer, "base", "tuned")
    assert (worse.measure, worse.drop > 0) == ("nats_per_token", True)
    assert not regressions(dearer, "tuned", "base")
