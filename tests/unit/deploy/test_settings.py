"""`--set` is checked against ms-swift's own arguments before anything starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.deploy.settings import parse_settings
from palmswift.errors import InputError


def test_values_have_the_types_of_yaml() -> None:
    words = ["max_batch_size=4", "enable_thinking=false", "template=qwen3", "temperature=0.7"]
    assert parse_settings(words) == {
        "max_batch_size": 4,
        "enable_thinking": False,
        "template": "qwen3",
        "temperature": 0.7,
    }


def test_every_fault_is_told_with_what_was_meant() -> None:
    with pytest.raises(InputError) as caught:
        parse_settings(["max_batchsize=4", "enable_thinking=maybe", "template", "stream="])
    told = str(caught.value)
    assert "did you mean max_batch_size" in told
    assert "is not true or false" in told
    assert told.count("is not NAME=VALUE") == 2


@given(st.text(max_size=30))
def test_any_word_is_a_setting_or_an_input_error(word: str) -> None:
    try:
        parse_settings([word])
    except InputError as error:
        assert error.problems
