from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support_eval import arithmetic, prediction, write_suite

from palmswift.eval.asking.journal import RequestError
from palmswift.eval.consistency_command import main
from palmswift.eval.fake.server import FakeServer, Plan
from palmswift.eval.measures.consistency import (
    agreement_of,
    consistency,
    differing,
    of_prompt,
    pass_all_k,
    pass_at_k,
)
from palmswift.eval.run import main as run_suite
from palmswift.eval.suites.scoring import score


def test_the_estimators_are_unbiased_over_every_sample_that_can_be_drawn() -> None:
    """The mean over all samples, weighted by how likely they are, is the truth itself."""
    n = 6
    for truth in (0.1, 0.5, 0.9):
        chances = [math.comb(n, c) * truth**c * (1 - truth) ** (n - c) for c in range(n + 1)]
        for k in range(1, n + 1):
            at = sum(p * pass_at_k(n, c, k) for c, p in enumerate(chances))
            of_all = sum(p * pass_all_k(n, c, k) for c, p in enumerate(chances))
            assert at == pytest.approx(1 - (1 - truth) ** k)
            assert of_all == pytest.approx(truth**k)


def test_agreement_is_unbiased_for_a_known_mixture() -> None:
    draw = np.random.default_rng(0)
    mixture = [0.6, 0.3, 0.1]
    found = [agreement_of(draw.choice(list("xyz"), 4, p=mixture).tolist()) for _ in range(20_000)]
    assert np.mean(found) == pytest.approx(sum(p * p for p in mixture), abs=0.006)
    # the plug-in estimate, which counts an answer as agreeing with itself, is far off
    assert np.mean([(3 * value + 1) / 4 for value in found]) > 0.55


def test_a_prompt_that_is_answered_in_two_ways_is_described() -> None:
    found = of_prompt("c", ["休诊", " 休诊\n", "休诊", "开门"], [True, True, True, False])
    assert found.agreement == pytest.approx(0.5)
    assert (found.majority, found.majority_share) == ("休诊", 0.75)
    assert found.entropy == pytest.approx(0.8112781)
    assert found.similarity == pytest.approx(0.5)
    assert found.passed == 3
    assert found.flaky


def test_the_repeats_of_a_run_are_summed_up_with_intervals_and_the_flaky_are_named() -> None:
    cases = [case.model_copy(update={"repeats": 4}) for case in arithmetic(8)]
    rows = []
    for number, case in enumerate(cases):
        for repeat in range(4):
            right = number != 3 or repeat % 2 == 0
            rows.append(prediction(case, case.reference if right else "?", repeat=repeat))
    error = RequestError(kind="status", status=500, message="HTTP 500")
    rows[-1] = prediction(cases[-1], None, repeat=3, error=error)
    found = consistency(score(cases, [], rows, ["tuned"]), "tuned")
    assert found is not None
    assert found.flaky == ["sum-3"]
    assert sorted(found.pass_at) == [1, 2, 3]  # one case has three replies
    assert found.pass_at[2].value == pytest.approx((7 + pass_at_k(4, 2, 2)) / 8)
    assert found.pass_all[2].value == pytest.approx((7 + pass_all_k(4, 2, 2)) / 8)
    for estimate in (found.agreement, found.pass_all[3]):
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.n == 8


def test_without_repeats_there_is_nothing_to_say() -> None:
    cases = arithmetic(2)
    rows = [prediction(case, "1") for case in cases]
    assert consistency(score(cases, [], rows, ["tuned"]), "tuned") is None
    with pytest.raises(ValueError, match="two answers"):
        agreement_of(["a"])
    with pytest.raises(ValueError, match="k = 3"):
        pass_at_k(2, 1, 3)


def test_greedy_answers_that_change_under_load_are_named_with_where_they_part() -> None:
    [found] = differing({"a": "休诊。", "b": "好", "c": "x"}, {"a": "休息。", "b": "好"})
    assert (found.case, found.same) == ("a", 1)


def test_the_command_tells_of_repeats_without_sending_and_of_greedy_answers_under_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(tmp_path / "s.yaml", 4)
    document = json.loads(suite.read_text())
    for case in document["cases"]:
        case["repeats"] = 3
    suite.write_text(json.dumps(document))
    turns = {
        f"{n}+1?": [Plan(str(n + 1)), Plan(str(n + 1)), Plan("?" if n else "1")] for n in range(4)
    }
    out = tmp_path / "out"
    with FakeServer(turns) as server:
        words = ["--suite", str(suite), "--out", str(out), "--endpoint", server.base_url]
        run_suite([*words, "--no-fingerprint"])
    capsys.readouterr()
    predictions = str(out / "predictions.jsonl")
    assert main(["--suite", str(suite), "--predictions", predictions, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["endpoints"]
    assert found["flaky"] == ["sum-1", "sum-2", "sum-3"]
    assert found["agreement"]["value"] == pytest.approx((1 + 3 * (1 / 3)) / 4)
    steady = {f"{n}+1?": Plan("same") for n in range(4)}
    with FakeServer(steady) as server:
        assert main(["--suite", str(suite), "--endpoint", server.base_url]) == 0
    shaky: dict[str, Plan | list[Plan]] = {**steady, "2+1?": [Plan("休诊。"), Plan("休息。")]}
    with FakeServer(shaky) as server:
        assert main(["--suite", str(suite), "--endpoint", server.base_url]) == 1
        assert {body["temperature"] for body in server.requests} == {0.0}
    assert "sum-2: they part after 1 characters" in capsys.readouterr().out
    assert main(["--suite", str(suite)]) == 2
