"""The chat template in the file makes the training's tokens, or says which prompt it does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from palmswift.deploy.parity_prompts import Prompt
from palmswift.deploy.parity_truth import Answer, Expected, Truth
from palmswift.export.llama_cpp.templates import (
    CHATML,
    Policy,
    choose,
    encoder,
    render,
    unchecked,
    with_policy,
)

NOTHING = Answer(text="", ids=[], finished=False, logprobs=[], gaps=[])
ASKED = [{"role": "user", "content": " hello \n"}]
CLOSED = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    return folder


def truth(tokenizer: Path, texts: Sequence[str]) -> Truth:
    """A training that saw these texts for ASKED."""
    encode = encoder(tokenizer)
    expected = [
        Expected(
            prompt=Prompt(name=f"val {number}", messages=ASKED),
            prompt_ids=encode(text),
            answer=NOTHING,
            base=NOTHING,
            variants={},
        )
        for number, text in enumerate(texts, 1)
    ]
    return Truth(key="", max_tokens=1, stop_ids=[], tokenizer=str(tokenizer), expected=expected)


PLAIN = "<|im_start|>user\n hello \n<|im_end|>\n<|im_start|>assistant\n"
STRIPS = CHATML.replace("message.content", "message.content | trim")


def test_the_models_own_template_stays_where_it_is_the_trainings(tokenizer: Path) -> None:
    found = choose(CHATML, Policy(None, None), truth(tokenizer, [PLAIN]))
    assert (found.text, found.origin, found.same) == (CHATML, "the model's own", 1)


def test_the_trainings_thinking_policy_is_written_in_front_of_it(tokenizer: Path) -> None:
    found = choose(CHATML, Policy(False, None), truth(tokenizer, [PLAIN + CLOSED]))
    assert found.origin == "the model's own with the training's policy"
    assert found.text.endswith(CHATML)
    assert render(found.text, ASKED) == PLAIN + CLOSED


def test_plain_chatml_stands_in_for_one_that_does_not_fit(tokenizer: Path) -> None:
    found = choose(STRIPS, Policy(False, None), truth(tokenizer, [PLAIN + CLOSED]))
    assert (found.origin, found.same, found.total) == ("plain ChatML", 1, 1)


def test_where_none_fits_the_first_prompt_that_differs_is_told(tokenizer: Path) -> None:
    found = choose(STRIPS, Policy(False, None), truth(tokenizer, ["[INST] hello [/INST]"]))
    assert found.same == 0
    assert found.first.startswith("val 1: it makes")


def test_a_template_that_fails_is_no_crash(tokenizer: Path) -> None:
    refuses = "{{ raise_exception('user must come first') }}"
    found = choose(refuses, Policy(None, None), truth(tokenizer, ["x"]))
    assert found.same == 0
    found = choose("{% for", Policy(None, None), truth(tokenizer, [PLAIN]))
    assert found.origin == "plain ChatML"


def test_unchecked_it_still_has_the_policy() -> None:
    assert "enable_thinking = false" in unchecked(CHATML, Policy(False, None)).text
    assert unchecked(CHATML, Policy(None, None)).text == CHATML
    assert unchecked(None, Policy(True, None)).origin == "plain ChatML"


@given(system=st.text(min_size=1))
def test_any_system_prompt_is_said_to_the_letter(system: str) -> None:
    template = with_policy(CHATML, Policy(None, system))
    assert f"<|im_start|>system\n{system}<|im_end|>" in render(template, ASKED)
    own = [{"role": "system", "content": "mine"}, *ASKED]
    assert render(template, own).startswith("<|im_start|>system\nmine<|im_end|>")
