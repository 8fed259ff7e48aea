from __future__ import annotations

import pytest
from support_rows import refused

from palmswift.data import chatml
from palmswift.data.row import RowError

ASKED = "<|im_start|>user\n一\n二<|im_end|>\n"


def test_blocks_become_turns_with_their_line_breaks() -> None:
    text = f"<|im_start|>system\ns<|im_end|>\n{ASKED}<|im_start|>assistant\na<|im_end|>\n"
    assert chatml.turns_of(text) == [("system", "s"), ("user", "一\n二"), ("assistant", "a")]
    assert chatml.turns_of(text.replace("\n", "\r\n")) == [
        *(("system", "s"), ("user", "一\r\n二"), ("assistant", "a")),
    ]


@pytest.mark.parametrize(
    "tail", ["a", "a<|im_end|>", "a<|im_end|><|endoftext|>\n", "a<|im_end|>\n"]
)
def test_the_last_answer_may_be_open_and_may_end_the_text(tail: str) -> None:
    assert chatml.turns_of(f"{ASKED}<|im_start|>assistant\n{tail}")[-1] == ("assistant", "a")


@pytest.mark.parametrize("prompt", ["<|im_start|>assistant\n", "<|im_start|>assistant"])
def test_an_open_answer_without_text_asks_for_one_and_is_no_turn(prompt: str) -> None:
    assert chatml.turns_of(ASKED + prompt) == [("user", "一\n二")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<|im_start|>user\nq\n<|im_start|>assistant\na<|im_end|>", "user block is not closed"),
        ("<|im_start|>user\nq", "user block is not closed"),
        (f"{ASKED}stray<|im_start|>assistant\na<|im_end|>", "stray"),
        (f"{ASKED}<|im_start|>system\ns<|im_end|>", "second dialogue"),
        ("<|im_start|>assistant\n", "no block"),
    ],
)
def test_text_that_does_not_divide_into_turns_is_rejected(text: str, why: str) -> None:
    with pytest.raises(RowError) as caught:
        chatml.turns_of(text)
    assert caught.value.code == "broken_chatml"
    assert why in caught.value.detail
    assert refused({"text": text}).code == "broken_chatml"


def test_text_that_only_mentions_a_block_is_not_chatml() -> None:
    assert not chatml.is_chatml("a turn begins with <|im_start|>")
    assert chatml.is_chatml("\ufeff\n<|im_start|>user\nq<|im_end|>")
