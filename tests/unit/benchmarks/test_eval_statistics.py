"""The verdict's error rates, on fewer pairs than the record's; the seeds are fixed."""

from __future__ import annotations

import json

import pytest

from benchmarks.eval_statistics.simulate import (
    ROOT,
    Scenario,
    scenarios,
    simulate,
    simulate_looking,
    simulate_suites,
)

PAIRS = 250
KINDS = [s for s in scenarios() if s.n in (8, 30, 50, 100) and not (s.n == 100 and not s.binary)]


@pytest.mark.parametrize("scenario", KINDS, ids=lambda s: f"{s.name} {s.n}")
def test_equal_models_are_seldom_told_apart_and_intervals_cover(scenario: Scenario) -> None:
    found = simulate(scenario, PAIRS, seed=77)
    # three standard errors of what is promised, at so few pairs
    if scenario.truth == 0:
        assert found["shown"] <= 0.05 + 0.041
    assert found["interval_covers"] >= 0.95 - 0.041 - 0.01
    if scenario.power is not None:
        assert abs(found["shown"] - scenario.power) <= 0.03 + 0.095


def test_looking_all_the_time_and_asking_many_suites_are_allowed_for() -> None:
    looking = simulate_looking(150, seed=5)
    assert looking["shown_when_equal"] <= 0.05 + 0.05
    assert looking["shown_when_different"] >= 0.9
    suites = simulate_suites(300, seed=6)
    assert suites["any_shown"] <= 0.05 + 0.038
    assert suites["any_shown_uncorrected"] > suites["any_shown"]


def test_the_record_keeps_every_promise() -> None:
    records = sorted((ROOT / "benchmarks" / "records").glob("eval-statistics-*.json"))
    newest = json.loads(records[-1].read_text(encoding="utf-8"))
    results = newest["results"]
    assert len(results) == len(scenarios()) + 2
    assert [result for result in results if result["problems"]] == []
    assert all(result["pairs"] >= 2000 for result in results)
    equal = [r for r in results if r.get("true_difference") == 0]
    assert max(r["shown"] for r in equal) <= 0.06
    assert min(r["interval_covers"] for r in results if "interval_covers" in r) >= 0.935
    told = [r for r in results if r.get("power_of_theory")]
    assert max(abs(r["shown"] - r["power_of_theory"]) for r in told) <= 0.03
