from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from palmswift.data.batch_template import BatchTemplate, Counted, Messages
from palmswift.data.verdict import Counts, Measured

END = ord("$")


class Characters(NamedTuple):
    ids: list[int]

    def __len__(self) -> int:
        return len(self.ids)


class CharacterTemplate:
    """A token a character; `<user>`, `<answer$`, and the suffix `$.`; takes off the edges' space.

    What it was asked is kept in `asked`.
    """

    telling = frozenset(("<tag>", "$"))
    eos = END

    def __init__(self, limit: int | None = None, refuses: bool = True) -> None:
        self.suffix = [END, ord(".")]
        self.separators = frozenset(("$", "<"))
        self.limit = limit, refuses
        self.asked: list[Messages] = []

    def reads(self, column: str) -> bool:
        return column == "tools"

    def strings(self, messages: Messages) -> list[tuple[str | list[int], bool]]:
        self.asked.append(messages)
        strings: list[tuple[str | list[int], bool]] = []
        for number, message in enumerate(messages):
            text = message["content"].strip()
            if message["role"] == "assistant":
                strings.append((text, True))
                strings.append(("$.", number == len(messages) - 1))
            elif strings:
                strings[-1] = (f"$.<{text}>", False)
            else:
                strings.append((f"<{text}>", False))
        if strings[-1] == ("$.", True):
            strings[-2:] = [(f"{strings[-2][0]}$.", True)]
        return strings

    def tokenize(self, texts: Sequence[str]) -> Sequence[Characters]:
        return [Characters([ord(character) for character in text]) for text in texts]


def row(*texts: str, **columns: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": turns, **columns}


def count(template: CharacterTemplate, *rows: dict[str, Any]) -> list[Counted | None]:
    return BatchTemplate(template, template, "sft").count(rows)


def test_rows_of_one_form_are_counted_after_asking_the_template_once() -> None:
    template = CharacterTemplate()
    counted = count(template, row("ab", "cd"), row("q", "answer"))
    assert [one and one.measured for one in counted] == [
        Measured((Counts(8, 4, True, True),)),
        Measured((Counts(11, 8, True, True),)),
    ]
    assert len(template.asked) == 1
    assert [one and one.first for one in counted] == [True, False]


def test_the_tokens_are_those_of_the_template_for_this_very_row() -> None:
    (counted,) = count(CharacterTemplate(), row("ab", "cd"))
    assert counted is not None
    assert counted.ids == [[ord(character) for character in "<ab>cd$."]]


def test_the_end_of_an_earlier_answer_is_supervised_with_it() -> None:
    (counted,) = count(CharacterTemplate(), row("ab", "cd", "e", "f"))
    assert counted is not None
    assert counted.measured.sequences == (Counts(14, 2 + 2 + 1 + 2, True, True),)


def test_white_space_at_the_edges_is_a_form_of_its_own() -> None:
    template = CharacterTemplate()
    counted = count(template, row("ab", "cd"), row(" ab\n", "cd"))
    assert [one and one.measured.longest for one in counted] == [8, 8]
    assert len(template.asked) == 2


@pytest.mark.parametrize(
    "odd",
    [
        row("a <tag>", "b"),
        row("{{QUERY}}", "b"),
        row("a", "b</think>c"),
        row("a", "b<think>c</think>"),
        row("a", "<think>b<think></think>c"),
        row("a", "b", tools="[]"),
        {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]},
        {"messages": [{"role": "user", "content": "a", "loss": True}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": []},
    ],
)
def test_a_row_that_the_template_might_look_into_is_left_to_it(odd: dict[str, Any]) -> None:
    template = CharacterTemplate()
    assert count(template, odd, row("a", "b"))[0] is None
    assert len(template.asked) == 1


def test_a_think_block_at_the_start_of_an_answer_is_part_of_its_form() -> None:
    template = CharacterTemplate()
    rows = [row("a", f"<think>{thought}</think>{answer}") for thought in "xy" for answer in "bc"]
    assert all(count(template, *rows))
    assert len(template.asked) == 1
    assert template.asked[0][1]["content"].startswith("<think>\ue000")


def test_a_row_over_the_limit_is_an_error_where_the_template_refuses_it() -> None:
    long = row("q" * 20, "answer")
    (counted,) = count(CharacterTemplate(limit=20), long)
    assert counted is not None
    assert counted.measured == Measured(error="MaxLengthError", n_tokens=30)
    assert count(CharacterTemplate(limit=20, refuses=False), long) == [None]


def test_both_answers_of_a_preference_pair_are_counted() -> None:
    template = CharacterTemplate()
    batch = BatchTemplate(template, template, "dpo")
    rows = [row("ab", "cd", rejected_response=answer) for answer in ("efg", "cd")]
    counted, same = batch.count(rows)
    assert counted is not None
    assert [counts.n_tokens for counts in counted.measured.sequences] == [8, 9]
    assert same is None
