"""An export is judged by what may be lost: nothing in a merge, a stated figure in rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_runs import make_run

from palmswift.deploy.parity_judge import Compared, ParityReport
from palmswift.deploy.parity_prompts import Prompt
from palmswift.deploy.parity_truth import Answer, Expected, Truth
from palmswift.export.proof import (
    QUANTISED,
    REROUNDED,
    SAME,
    Standard,
    judged,
    result_of,
    sentence,
    standard_of,
)

ANSWER = Answer(text="a", ids=[1, 2], finished=True, logprobs=[0.0, 0.0], gaps=[5.0, 5.0])
TRUTH = Truth(
    key="",
    max_tokens=8,
    stop_ids=[2],
    tokenizer="",
    expected=[
        Expected(
            prompt=Prompt(name=f"val {number}", messages=[]),
            prompt_ids=[1],
            answer=ANSWER,
            base=ANSWER,
            variants={},
        )
        for number in (1, 2)
    ],
)
MERGED = Standard(SAME, "merge_loss", lossy=False)
ROUNDED = Standard(QUANTISED, "quantisation_loss", lossy=True)


def report(far: float, cause: str | None = None, answer: str = "same") -> ParityReport:
    """Two prompts, `far` nats apart; the second with a cause."""
    prompts = [
        Compared.model_validate(
            {"name": name, "prompt": "same", "answer": said, "divergence": far, "cause": why}
        )
        for name, said, why in (("val 1", "same", None), ("val 2", answer, cause))
    ]
    return ParityReport(
        run="r",
        endpoint="e",
        model="m",
        max_tokens=8,
        tells_tokens=True,
        prompts=prompts,
        divergence=far,
        causes={cause: ["val 2"]} if cause else {},
    )


def test_a_quantisation_under_the_limit_is_a_figure_and_no_fault() -> None:
    found = judged(report(0.1, "lossy_weights"), TRUTH, ROUNDED)
    assert found.passed
    told = sentence(result_of(found, QUANTISED), quantised=True)
    assert told == "quantisation loss 0.1 nats a token; 2 of 2 answers the same"


def test_a_quantisation_over_the_limit_fails_by_its_name() -> None:
    found = judged(report(0.4, "lossy_weights"), TRUTH, ROUNDED)
    assert [*found.causes] == ["quantisation_loss"]


def test_a_merge_of_whole_weights_may_lose_nothing() -> None:
    found = judged(report(0.1, "lossy_weights"), TRUTH, MERGED)
    assert found.causes == {"merge_loss": ["val 2"]}
    assert found.prompts[1].cause == "merge_loss"


@pytest.mark.parametrize("cause", ["template", "thinking", "adapter_missing", "stop_missing"])
@pytest.mark.parametrize("standard", [MERGED, ROUNDED])
def test_no_limit_excuses_another_template_a_lost_adapter_or_stop_token(
    cause: str, standard: Standard
) -> None:
    answer = "differs" if cause in ("adapter_missing", "stop_missing") else "same"
    found = judged(report(0.01, cause, answer), TRUTH, standard)
    if cause == "stop_missing" and standard.lossy:  # the other answer ends where it should
        assert [*found.causes] in ([cause], ["quantisation_loss"])
    else:
        assert [*found.causes] == [cause]


def test_other_weights_stay_other_weights() -> None:
    found = judged(report(3.0, "other_weights", "differs"), TRUTH, ROUNDED)
    assert [*found.causes] == ["other_weights"]


def test_the_limit_is_that_of_what_was_trained_and_made(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "a")
    rounded = make_run(tmp_path / "b", swift={"quant_method": "bnb", "quant_bits": 4})
    assert standard_of(whole, quantised=False, limit=None) == MERGED
    assert standard_of(whole, quantised=True, limit=None) == ROUNDED
    assert standard_of(rounded, quantised=False, limit=None) == Standard(
        REROUNDED, "merge_loss", lossy=True
    )
    assert standard_of(whole, quantised=True, limit=0.5).limit == 0.5
