"""A rounding on purpose is a figure; what rounding cannot do stays a fault."""

from __future__ import annotations

from typing import Any

from palmswift.deploy.parity_judge import CAUSES, Compared, ParityReport
from palmswift.deploy.parity_loss import LOSS, accept_loss
from palmswift.deploy.parity_prompts import Prompt
from palmswift.deploy.parity_truth import Answer, Expected, Truth

ANSWER = Answer(text="ab", ids=[1, 2], finished=True, logprobs=[0.0, 0.0], gaps=[9.0, 9.0])


def truth(*names: str) -> Truth:
    """A training whose answers all end by themselves."""
    expected = [
        Expected(
            prompt=Prompt(name=name, messages=[]),
            prompt_ids=[1],
            answer=ANSWER,
            base=ANSWER,
            variants={},
        )
        for name in names
    ]
    return Truth(key="", max_tokens=8, stop_ids=[2], tokenizer="", expected=expected)


def compared(name: str, **changes: Any) -> Compared:
    """A prompt that rounding moved a little."""
    told = {"prompt": "same", "answer": "tie", "divergence": 0.07, "cause": None, **changes}
    return Compared(name=name, **told)


def report(*prompts: Compared, divergence: float | None = 0.07) -> ParityReport:
    """A server's report of them."""
    causes: dict[str, list[str]] = {}
    for one in prompts:
        if one.cause:
            causes.setdefault(one.cause, []).append(one.name)
    return ParityReport(
        run="r",
        endpoint="",
        model="m",
        max_tokens=8,
        tells_tokens=True,
        prompts=[*prompts],
        divergence=divergence,
        causes=causes,
    )


def accepted(*prompts: Compared, limit: float = 0.1, **changes: Any) -> dict[str, list[str]]:
    """The causes that are left."""
    names = [one.name for one in prompts]
    return accept_loss(report(*prompts, **changes), truth(*names), limit).causes


def test_a_loss_under_the_limit_is_no_fault() -> None:
    one = compared("a", divergence=0.12, cause="lossy_weights")
    assert accepted(one, compared("b", divergence=0.02)) == {}


def test_a_loss_over_the_limit_is_named_with_its_figure() -> None:
    one = compared("a", cause="lossy_weights")
    found = accept_loss(report(one, divergence=0.13), truth("a"), 0.1)
    assert found.causes == {LOSS: ["a"]}
    assert "0.13 nats a token" in found.prompts[0].detail
    assert LOSS in CAUSES


def test_a_loss_over_the_limit_that_no_prompt_shows_alone_is_named_too() -> None:
    assert accepted(compared("a"), compared("b"), divergence=0.2) == {LOSS: ["a"]}


def test_a_loss_that_could_not_be_measured_is_not_taken_for_none() -> None:
    parted = compared("a", divergence=None)
    assert accepted(parted, divergence=None) == {LOSS: ["a"]}
    same = compared("a", answer="same", divergence=None)
    assert accepted(same, divergence=None) == {}


def test_another_answer_that_was_no_close_call_is_no_rounding() -> None:
    one = compared("a", answer="differs", divergence=0.0005, cause="lossy_weights")
    assert accepted(one, divergence=0.0005) == {LOSS: ["a"]}


def test_what_rounding_cannot_do_stays_as_it_was_named() -> None:
    wrong = compared("a", prompt="differs", cause="thinking")
    assert accepted(wrong, compared("b", cause="lossy_weights")) == {"thinking": ["a"]}
    far = report(compared("a", divergence=3.0, cause="other_weights"), divergence=3.0)
    assert accept_loss(far, truth("a"), 0.1) is far


def test_a_stop_token_is_lost_only_where_it_never_ends_an_answer() -> None:
    goes_on = compared("a", cause="stop_missing")
    assert accepted(goes_on) == {"stop_missing": ["a"]}
    assert accepted(goes_on, compared("b", answer="same")) == {}
