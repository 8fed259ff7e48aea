"""Comparing what a server says with what the trained model says, and naming the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.deploy.parity import base_url, lines, main
from palmswift.deploy.parity_judge import CAUSES, Compared, Limits, judge, report
from palmswift.deploy.parity_probe import Observed, Said, said
from palmswift.deploy.parity_prompts import Prompt
from palmswift.deploy.parity_truth import Answer, Expected, Truth

LIMITS = Limits(tie=0.1, divergence=0.05)
STOP = 2
PROMPT = [11, 12, 13, 14]


def answer(ids: Sequence[int], *, finished: bool = True, gap: float = 5.0) -> Answer:
    """An answer of these tokens, each sure."""
    whole = [*ids, STOP] if finished else [*ids]
    return Answer(
        text=text(ids),
        ids=whole,
        finished=finished,
        logprobs=[-0.01] * len(whole),
        gaps=[gap] * len(whole),
    )


def text(ids: Sequence[int]) -> str:
    """A letter a token."""
    return "".join(chr(97 + one % 26) for one in ids if one != STOP)


def expected(*, gap: float = 5.0) -> Expected:
    """What the trained model says; the base says something else."""
    return Expected(
        prompt=Prompt(name="val 1", messages=[{"role": "user", "content": "q"}]),
        prompt_ids=PROMPT,
        answer=answer([21, 22, 23], gap=gap),
        base=answer([31, 32, 33], finished=False),
        variants={"thinking_on": [11, 12], "thinking_off+no_system": [13, 14, 15]},
    )


TRUTH = Truth(key="", max_tokens=8, stop_ids=[STOP], tokenizer="", expected=[expected()])


def seen(
    ids: Sequence[int] = (21, 22, 23, STOP),
    *,
    prompt: Sequence[int] | None = PROMPT,
    off: float = 0.0,
    **changes: Any,
) -> Said:
    """What a server says; `off` is added to its log-probabilities."""
    whole: dict[str, Any] = {
        "prompt_ids": None if prompt is None else [*prompt],
        "prompt_tokens": len(prompt or PROMPT),
        "text": text(ids),
        "ids": [*ids],
        "logprobs": [-0.01 - off] * len(ids),
        "finish_reason": "stop",
    }
    return Said(**{**whole, **changes})


def judged(plain: Said, *, again: Said | None = None, neutral: Said | None = None) -> Compared:
    """The comparison of one prompt."""
    observed = Observed(plain=plain, again=again or plain, neutral=neutral or plain)
    return judge(expected(), observed, TRUTH, LIMITS, text)


def test_the_trained_models_own_words_pass() -> None:
    found = judged(seen())
    assert (found.prompt, found.answer, found.cause) == ("same", "same", None)
    assert found.divergence == 0.0


@pytest.mark.parametrize("ids", [[21, 22, 23], [21, 22, 23, STOP]])
def test_a_stop_token_that_is_not_told_makes_no_difference(ids: list[int]) -> None:
    assert judged(seen(ids)).passed


@pytest.mark.parametrize(
    ("plain", "cause"),
    [
        (seen(prompt=[11, 12]), "thinking"),
        (seen(prompt=[13, 14, 15]), "system_prompt"),
        (seen(prompt=[9, *PROMPT]), "extra_start_token"),
        (seen(prompt_tokens=5), "extra_start_token"),
        (seen(prompt=[12, 13, 14]), "prompt_cut"),
        (seen(prompt=[11, 14]), "prompt_cut"),
        (seen(prompt=[11, 12 + 26, 13, 14]), "tokenizer"),
        (seen(prompt=[11, 40, 13, 14]), "template"),
        (seen([21, 22, 23, STOP, 24, 25]), "stop_missing"),
        (seen([21, STOP]), "answer_cut"),
        (seen([31, 32, 33]), "adapter_missing"),
        (seen([21, 41, 42], off=0.3), "lossy_weights"),
        (seen([21, 41, 42], off=3.0), "other_weights"),
        (seen([41, 42]), "other_weights"),
        (seen(off=0.2), "lossy_weights"),
        (Said(error="HTTP 400: too long"), "refused"),
    ],
)
def test_each_cause_is_told_by_its_mark(plain: Said, cause: str) -> None:
    assert judged(plain).cause == cause


@pytest.mark.parametrize(
    ("plain", "cause"),
    [
        (seen(prompt=None, prompt_tokens=2), "thinking"),
        (seen(prompt=None, prompt_tokens=3), "system_prompt"),
        (seen(prompt=None, prompt_tokens=5), "extra_start_token"),
        (seen(prompt=None, prompt_tokens=70), "template"),
        (seen(prompt=None, ids=[21, 22, 23], text="vwx!"), None),
        (seen(prompt=None, prompt_tokens=None), None),
    ],
)
def test_a_server_that_tells_no_tokens_is_judged_by_their_number(
    plain: Said, cause: str | None
) -> None:
    assert judged(plain).cause == cause


@pytest.mark.parametrize(
    ("said_text", "cause"),
    [
        ("vwx", None),
        ("vwxyz", "stop_missing"),
        ("vw", "answer_cut"),
        ("fgh", "adapter_missing"),
        ("abc", "other_weights"),
    ],
)
def test_a_server_that_tells_no_answer_tokens_is_judged_by_its_text(
    said_text: str, cause: str | None
) -> None:
    assert (
        judged(seen(ids=[], text=said_text, logprobs=None).model_copy(update={"ids": None})).cause
        == cause
    )


def test_two_answers_to_one_request_are_sampling() -> None:
    assert judged(seen([41]), again=seen([42])).cause == "not_greedy"


def test_an_answer_that_only_explicit_settings_bring_is_the_servers_defaults() -> None:
    assert judged(seen([41, 42]), neutral=seen()).cause == "generation_defaults"


def test_a_close_call_may_go_either_way_and_a_sure_one_may_not() -> None:
    observed = Observed(plain=seen([21, 41]), again=seen([21, 41]), neutral=seen([21, 41]))
    close = judge(expected(gap=0.01), observed, TRUTH, LIMITS, text)
    assert (close.answer, close.cause) == ("tie", None)
    assert judge(expected(gap=1.0), observed, TRUTH, LIMITS, text).answer == "differs"


tokens = st.lists(st.integers(min_value=0, max_value=60), max_size=8)


@given(
    ids=st.none() | tokens,
    prompt=st.none() | tokens,
    count=st.none() | st.integers(0, 9),
    logprobs=st.none() | st.lists(st.floats(-9, 0), max_size=9),
)
def test_whatever_a_server_says_is_judged_and_only_its_causes_fail(
    ids: list[int] | None,
    prompt: list[int] | None,
    count: int | None,
    logprobs: list[float | None] | None,
) -> None:
    plain = Said(
        prompt_ids=prompt, prompt_tokens=count, text=text(ids or ()), ids=ids, logprobs=logprobs
    )
    found = judged(plain)
    assert found.cause is None or found.cause in CAUSES
    if found.passed:
        assert found.prompt in ("same", "same_length", "not_told")
        assert found.answer in ("same", "tie")


def test_a_completions_document_is_read_with_tokens_thinking_and_probabilities() -> None:
    found = said(
        {
            "prompt_token_ids": [1, 2],
            "usage": {"prompt_tokens": 2},
            "choices": [
                {
                    "message": {"content": "<think>\n\n</think>\n\nhello"},
                    "token_ids": [3, 4],
                    "logprobs": {"content": [{"logprob": -0.5}, {"logprob": None}]},
                    "finish_reason": "stop",
                }
            ],
        }
    )
    assert (found.text, found.ids, found.prompt_ids) == ("hello", [3, 4], [1, 2])
    assert found.logprobs == [-0.5]
    split = said({"choices": [{"message": {"content": "yes", "reasoning_content": "hm"}}]})
    assert split.text == "<think>\nhm\n</think>\n\nyes"


def test_the_report_tells_every_cause_once_with_its_remedy() -> None:
    compared = [judged(seen(prompt=[11, 12])), judged(seen(prompt=[11, 12])), judged(seen())]
    found = report("run", "url", "m", TRUTH, compared, tells_tokens=True)
    assert not found.passed
    said_lines = "\n".join(lines(found, TRUTH))
    assert "thinking: the server has the other thinking policy (2 of 3 prompts)" in said_lines
    assert "enable_thinking=false" in said_lines
    assert "NOT the trained model" in said_lines


def test_what_one_prompt_shows_for_certain_explains_what_others_hint_at() -> None:
    hint, sure = judged(seen(off=0.2)), judged(seen([31, 32, 33]))
    found = report("run", "url", "m", TRUTH, [hint, sure], tells_tokens=True)
    assert found.causes == {"adapter_missing": ["val 1", "val 1"]}
    assert found.prompts[0].cause == "lossy_weights"


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1/"]
)
def test_an_address_may_be_written_in_any_usual_way(address: str) -> None:
    assert base_url(address) == "http://127.0.0.1:8000/v1"


def test_numbers_that_make_no_sense_are_refused_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--rows", "-1", "--max-tokens", "0", "--tie", "nan"]) == 2
    told = capsys.readouterr().err
    assert all(flag in told for flag in ("--rows", "--max-tokens", "--tie"))
