from __future__ import annotations

import pytest

from palmswift.eval.measures.metrics import (
    LOWER_IS_BETTER,
    METRICS,
    NAMES,
    PER_ANSWER,
    answer_scores,
    latency,
    metric_of,
)


def test_everything_that_can_be_asked_for_has_a_name_and_a_scale() -> None:
    given = {name for names in NAMES.values() for name in names}
    assert given <= METRICS.keys()
    assert PER_ANSWER.keys() <= METRICS.keys()
    assert {"perplexity", "repetition", "error_rate"} <= LOWER_IS_BETTER
    assert metric_of("judge.tone").scale == "rating"
    with pytest.raises(KeyError):
        metric_of("judge.")


def test_an_answer_gets_the_scores_that_were_asked_for_each_against_its_best_reference() -> None:
    scores = answer_scores("休诊", ["不开门", "休诊"], ["exact_match", "rouge", "similarity"])
    assert scores == {
        "exact_match": 1.0,
        **dict.fromkeys(NAMES["rouge"], 100.0),
        "similarity": 1.0,
    }


def test_without_references_an_answer_has_only_what_needs_none() -> None:
    assert answer_scores("天" * 20, [], ["chrf", "diversity"]) == {
        "repetition": pytest.approx(16 / 17)
    }


def test_latency_interpolates_as_numpy_does() -> None:
    times = latency([4.0, 1.0, 3.0, 2.0])
    assert times == pytest.approx((2.5, 2.5, 3.85))
    assert latency([7.0]) == (7.0, 7.0, 7.0)
