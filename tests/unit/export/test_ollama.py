"""The Modelfile renders what was trained on, and says what decides an answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_go import RENDERERS, Asked, by_rules

from palmswift.errors import InputError
from palmswift.export.llama_cpp.templates import CHATML, Policy, render, with_policy
from palmswift.export.ollama import go_template, modelfile, rendered

Conversation = list[dict[str, str]]
LETTERS = "ab \n\t{}<>|\"'`.$\\é你好🙂\u3000"
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "system"]),
            "content": st.text(alphabet=st.sampled_from(LETTERS), max_size=30),
        }
    ),
    min_size=1,
    max_size=5,
)
THINKING = st.sampled_from([True, False, None])


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda one: one.__name__)
def test_go_renders_what_is_compared_with_the_training(
    renderer: Callable[[Sequence[Asked]], list[str]],
) -> None:
    chance = random.Random(1)
    asked, expected = [], []
    for _ in range(200):
        messages = [
            {
                "role": chance.choice(["user", "assistant", "system"]),
                "content": "".join(
                    chance.choices([*LETTERS, "{{ .Role }}"], k=chance.randrange(30))
                ),
            }
            for _ in range(chance.randrange(1, 6))
        ]
        for thinking in (True, False, None):
            asked.append(Asked(go_template(thinking), messages))
            expected.append(rendered(messages, Policy(thinking, None)))
    assert renderer(asked) == expected


@given(messages=MESSAGES, thinking=THINKING)
def test_ollama_and_llama_cpp_are_given_one_prompt(
    messages: Conversation, thinking: bool | None
) -> None:
    policy = Policy(thinking, None)
    assert by_rules([Asked(go_template(thinking), messages)]) == [
        render(with_policy(CHATML, policy), messages)
    ]


def test_a_hybrid_model_answers_at_once_where_a_request_asks_so() -> None:
    messages = [{"role": "user", "content": "q"}]
    template = go_template(None)
    silent, told, thinks = by_rules([Asked(template, messages, x) for x in (False, None, True)])
    assert silent == told + "<think>\n\n</think>\n\n"
    assert told == thinks


def test_the_system_prompt_is_said_once_and_a_requests_own_comes_before_it() -> None:
    policy = Policy(False, "Be kind.")
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}]
    assert "Be kind." not in rendered(own, policy)
    assert rendered(own[1:], policy).startswith("<|im_start|>system\nBe kind.<|im_end|>\n")
    assert 'SYSTEM """Be kind."""' in modelfile("x.gguf", policy, [], {}, None)


def test_what_decides_an_answer_is_written_out() -> None:
    parameters = {"temperature": 0.6, "repeat_penalty": 1.0, "num_ctx": 8192}
    stops = ["<|im_end|>", "<|endoftext|>"]
    text = modelfile("../gguf-q8_0/my.gguf", Policy(False, None), stops, parameters, "Apache\n")
    lines = text.splitlines()
    assert lines[0] == "FROM ../gguf-q8_0/my.gguf"
    for line in (
        *('PARAMETER stop "<|im_end|>"', 'PARAMETER stop "<|endoftext|>"'),
        *("PARAMETER temperature 0.6", "PARAMETER repeat_penalty 1.0", "PARAMETER num_ctx 8192"),
        'LICENSE """Apache"""',
    ):
        assert line in lines
    assert "SYSTEM" not in text


def test_a_system_prompt_that_a_modelfile_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="cannot hold the system prompt"):
        modelfile("x.gguf", Policy(False, 'say """hi"""'), [], {}, None)
