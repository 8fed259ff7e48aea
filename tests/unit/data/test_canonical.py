"""What holds for the canonical form of every row, whatever is fed in."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_rows import PLACE

from palmswift.data.checks import Canonicaliser
from palmswift.data.columns import KNOWN
from palmswift.data.policy import CHANGES, CHECKS
from palmswift.data.row import Kind, RowError, SourceRow, TrainingRow, json_line
from palmswift.recipes.recipe import DataSettings

PIECES = (
    *("a", "你 好 吗", "中", " ", "\n", "。", "<", "|>", "<|", "{{", "}}", "1", "@", "-", "#"),
    *("<|im_end|>", "<|im_start|>", "<|im_start|>user\n", "<|endoftext|>", "<｜User｜>", "im_end"),
    *("{{ROUND0}}", "{{QUERY}}", "{", "<think>", "</think>", "<think>\n\n</think>\n\n"),
    *("13800138000", "138 0013 8000", "11010519491231002X", "4111111111111111", "li@example.com"),
    *("sk-abcdefghij0123456789", "password: hunter22", "密码：abc12345"),
    *("\u200b", "\u200d", "\ufeff", "\x07", "\x0c", "\u202e", "😀", "ع", "\U000e0041", "\u3000"),
    *("锟斤拷", "Ã©", "\x92", "2024-01-01", "作为AI，我不能回答"),
    *('{"name": "f", "arguments": {}}', "[]", '[{"role": "user", "content": "x"}]', "I'm sorry"),
)
WORDS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=5).map("".join)
TEXTS = WORDS | st.builds("{}{}".format, WORDS, st.sampled_from(["\ufffd", "\x00", "\ud800"]))
ROLE_NAMES = ["system", "user", "assistant", "human", "gpt", "tool_call", "observation", "x"]
CALLS = st.fixed_dictionaries(
    {"name": TEXTS, "arguments": st.dictionaries(TEXTS, TEXTS | st.none(), max_size=2)}
)
CONTENTS = st.one_of(TEXTS, TEXTS, TEXTS, st.none(), CALLS, CALLS.map(json.dumps), st.integers())
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(ROLE_NAMES), "content": CONTENTS}),
    st.fixed_dictionaries(
        {"from": st.sampled_from(ROLE_NAMES), "value": CONTENTS},
        optional={"loss": st.booleans(), "name": TEXTS},
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={
            "content": TEXTS,
            "reasoning_content": TEXTS,
            "tool_calls": st.lists(CALLS, max_size=2),
        },
    ),
)
QUESTIONS = TEXTS.map(lambda text: {"role": "user", "content": text})
ANSWERS = TEXTS.map(lambda text: {"role": "assistant", "content": text})
DIALOGUES = st.one_of(
    st.lists(MESSAGES, max_size=5),
    st.lists(st.tuples(QUESTIONS, ANSWERS), min_size=1, max_size=3).map(
        lambda rounds: [turn for pair in rounds for turn in pair]
    ),
    st.tuples(QUESTIONS, st.lists(MESSAGES, max_size=3), ANSWERS).map(
        lambda parts: [parts[0], *parts[1], parts[2]]
    ),
    st.lists(TEXTS, max_size=4),
)
CHATML = st.lists(st.tuples(st.sampled_from(ROLE_NAMES), TEXTS), min_size=1, max_size=3).map(
    lambda blocks: "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in blocks)
)
NAMES = sorted({name for tiers in KNOWN.values() for names in tiers for name in names})
VALUES = st.one_of(TEXTS, TEXTS, DIALOGUES, st.none(), st.booleans(), st.integers(), CHATML)
ROWS = st.one_of(
    TEXTS,
    CHATML,
    DIALOGUES,
    st.fixed_dictionaries({"messages": DIALOGUES}, optional={"tools": st.lists(CALLS, max_size=2)}),
    st.fixed_dictionaries({"prompt": TEXTS | DIALOGUES, "chosen": TEXTS, "rejected": TEXTS}),
    st.tuples(DIALOGUES, TEXTS, TEXTS).map(
        lambda parts: {
            "chosen": [*parts[0], {"role": "assistant", "content": parts[1]}],
            "rejected": [*parts[0], {"role": "assistant", "content": parts[2]}],
        }
    ),
    st.fixed_dictionaries(
        {"query": TEXTS, "response": TEXTS},
        optional={"label": st.booleans() | st.sampled_from(["yes", "否", "x"]), "system": TEXTS},
    ),
    st.fixed_dictionaries({"question": TEXTS}, optional={"solution": TEXTS | st.floats()}),
    st.fixed_dictionaries({"text": TEXTS | CHATML}),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4),
)
ASKED = st.builds("问{}".format, WORDS)
ANSWERED = WORDS | st.builds("答{}".format, WORDS)
PROMPTS = st.builds(
    lambda system, rounds, question: [
        *({"role": "system", "content": text} for text in system),
        *(turn for pair in rounds for turn in pair),
        {"role": "user", "content": question},
    ],
    st.lists(WORDS, max_size=1),
    st.lists(
        st.tuples(
            ASKED.map(lambda text: {"from": "human", "value": text}),
            ANSWERED.map(lambda text: {"role": "assistant", "content": text}),
        ),
        max_size=2,
    ),
    ASKED,
)
ROUNDS_OF_TOOLS = st.builds(
    lambda calls, results: [
        *({"role": "tool_call", "content": call} for call in calls),
        *({"role": "tool", "content": result} for result in results),
    ],
    st.lists(CALLS, min_size=1, max_size=2),
    st.lists(WORDS | CALLS, min_size=1, max_size=2),
)
TOOLS = st.lists(st.fixed_dictionaries({"name": ASKED, "description": WORDS}), max_size=2)


def answered(prompt: list[Any], between: list[Any], answer: str) -> list[Any]:
    return [*prompt, *between, {"role": "assistant", "content": answer}]


ANSWERED_DIALOGUES = st.builds(answered, PROMPTS, st.just([]) | ROUNDS_OF_TOOLS, ANSWERED)
SHAPED: dict[Kind, st.SearchStrategy[Any]] = {
    "sft": st.one_of(
        st.fixed_dictionaries({"messages": ANSWERED_DIALOGUES}, optional={"tools": TOOLS}),
        st.lists(ANSWERED, min_size=2, max_size=5),
        st.fixed_dictionaries({"问题": ASKED, "答案": ANSWERED}, optional={"history": st.just([])}),
    ),
    "pt": st.fixed_dictionaries({"text": ANSWERED}) | ANSWERED,
    "dpo": st.one_of(
        st.fixed_dictionaries({"prompt": ASKED, "chosen": ANSWERED, "rejected": ANSWERED}),
        st.builds(
            lambda prompt, chosen, rejected: {
                "chosen": answered(prompt, [], chosen),
                "rejected": answered(prompt, [], rejected),
            },
            *(PROMPTS, ANSWERED, ANSWERED),
        ),
        st.fixed_dictionaries({"messages": ANSWERED_DIALOGUES, "rejected_response": ANSWERED}),
    ),
    "kto": st.fixed_dictionaries(
        {"messages": ANSWERED_DIALOGUES, "label": st.sampled_from([True, False, 0, "是", "bad"])}
    ),
    "grpo": st.fixed_dictionaries(
        {"messages": PROMPTS | ANSWERED_DIALOGUES},
        optional={"solution": ANSWERED | st.integers(), "level": st.floats() | WORDS},
    ),
}
RULES = st.fixed_dictionaries(
    {},
    optional={
        code: st.sampled_from([*(check.actions * 3), "reject"])
        for code, check in CHECKS.items()
        if len(check.actions) > 1 and "reject" in check.actions
    },
)
KINDS: tuple[Kind, ...] = get_args(Kind)


def follows(before: str, after: str) -> bool:
    allowed = {
        "start": "system user",
        "system": "user",
        "user": "assistant tool_call",
        "assistant": "user tool_call",
        "tool_call": "tool_call tool_response",
        "tool_response": "tool_response assistant tool_call",
    }
    return after in allowed[before].split()


def check_form(row: TrainingRow, kind: Kind) -> None:
    """The canonical form as TrainingRow's docstring has it."""
    roles = [message.role for message in row.messages]
    assert row.changes <= CHANGES.keys()
    assert row.findings <= CHECKS.keys()
    json_line(row.as_row()).encode("utf-8")
    for role, text in row.messages:
        assert text == text.strip()
        assert text or role == "tool_response"
        assert not re.search("[\x00\ud800-\udfff\ufffd]", text)
    if kind == "pt":
        assert roles == ["assistant"]
        return
    assert all(follows(*pair) for pair in zip(["start", *roles], roles, strict=False))
    assert roles[-1] in (["user"] if kind == "grpo" else ["assistant", "tool_call"])
    assert (row.rejected_response is not None) == (kind == "dpo")
    assert row.rejected_response != row.messages[-1].content
    assert isinstance(row.label, bool) == (kind == "kto")
    assert kind == "grpo" or not row.extra
    assert isinstance(row.extra.get("solution", ""), str)
    for role, text in row.messages:
        if role == "tool_call":
            assert json.loads(text).keys() == {"name", "arguments"}
    if row.tools is not None:
        assert isinstance(json.loads(row.tools), list)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("well_shaped", [True, False])
def test_a_kept_row_has_the_form_and_read_again_is_the_same_without_changes(
    kind: Kind, well_shaped: bool
) -> None:
    @settings(max_examples=60, deadline=None)
    @given(SHAPED[kind] if well_shaped else ROWS, RULES, st.none() | st.just(" be kind "))
    def prove(value: Any, rules: dict[str, str], system: str | None) -> None:
        canonicaliser = Canonicaliser(kind, DataSettings(rules=rules, system=system))
        try:
            row = canonicaliser.row(SourceRow(PLACE, value))
        except RowError as error:
            assert error.code in CHECKS
            return
        check_form(row, kind)
        written = json.loads(json_line(row.as_row()))
        again = canonicaliser.row(SourceRow(PLACE, written))
        assert again.as_row() == row.as_row()
        assert again.changes == set()
        assert again.findings == row.findings

    prove()
