from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.data.policy import CHECKS
from palmswift.data.row import Kind
from palmswift.data.verdict import Counts, Measured, Part, Verdict, Verdicts, verdict_on

TRAINS = Counts(n_tokens=30, n_supervised=5, has_text=True, ends_with_eos=True)


@pytest.mark.parametrize(
    ("measured", "code", "told"),
    [
        (Measured(error="MaxLengthError", n_tokens=300), "over_length", "300 tokens > max_length"),
        (Measured(error="TypeError", detail="odd"), "template_error", "TypeError: odd"),
        (Measured((TRAINS,), control_token="<|x|>"), "control_tokens", "<|x|>"),
        (Measured((Counts(30, 0, False, False),)), "zero_supervised_tokens", "0 of 30"),
        (Measured((Counts(30, 2, False, True),)), "no_supervised_text", "2 supervised"),
        (Measured((Counts(30, 5, True, False),)), "no_eos", "cut"),
    ],
)
def test_a_verdict_has_the_reason_why_the_row_does_not_train(
    measured: Measured, code: str, told: str
) -> None:
    verdict = verdict_on(measured, "sft", 128)
    assert verdict.code == code and told in verdict.detail
    assert code in CHECKS


@pytest.mark.parametrize("kind", ["sft", "pt", "kto"])
def test_a_row_that_trains_has_its_counts_and_no_reason(kind: Kind) -> None:
    assert verdict_on(Measured((TRAINS,)), kind, 128) == Verdict(30, 5)


def test_a_preference_pair_is_as_long_as_its_longer_and_as_good_as_its_worse_answer() -> None:
    longer = TRAINS._replace(n_tokens=40, n_supervised=15)
    assert verdict_on(Measured((TRAINS, longer)), "dpo", 128) == Verdict(40, 5)
    cut = longer._replace(ends_with_eos=False)
    verdict = verdict_on(Measured((TRAINS, cut)), "dpo", 128)
    assert verdict.code == "no_eos" and "rejected answer" in verdict.detail


def test_a_prompt_alone_needs_no_supervised_token() -> None:
    assert verdict_on(Measured((Counts(30, 0, False, False),)), "grpo", 128) == Verdict(30, 0)


counts = st.integers(0, 2**32 - 1)
parts = st.lists(st.builds(Part, counts, counts, counts, counts), max_size=3).map(tuple)
verdicts = st.builds(
    Verdict, counts, counts, st.sampled_from(["", "", "no_eos"]), st.text(max_size=3), parts
).map(lambda verdict: verdict if verdict.code else verdict._replace(detail=""))


@given(st.lists(st.lists(verdicts, max_size=8), max_size=4))
def test_verdicts_come_out_as_they_went_in(chunks: list[list[Verdict]]) -> None:
    together = Verdicts()
    for chunk in chunks:
        together.extend(chunk)
    expected = [verdict for chunk in chunks for verdict in chunk]
    assert len(together) == len(expected)
    assert list(together) == expected
    for index, verdict in enumerate(expected):
        assert (together.reason(index) is None) == (not verdict.code)
        ranges = [(part.start, part.stop) for part in verdict.parts]
        assert (together.parts(index) or []) == ranges
        sizes = [(part.n_tokens, part.n_supervised) for part in verdict.parts]
        assert (together.part_counts(index) or []) == sizes
