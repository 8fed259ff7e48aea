from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.eval.think import Piece, ThinkStream, split_think


@pytest.mark.parametrize(
    ("content", "apart", "answer", "reasoning"),
    [
        ("好的", None, "好的", None),
        ("<think>\n\n</think>\n\n好的", None, "好的", None),
        ("<think>\n想想\n</think>\n\n好的", None, "好的", "想想"),
        ("\n<think>想想</think>好的", None, "好的", "想想"),
        ("<think>想想", None, None, "想想"),
        ("<think>", None, None, None),
        ("想想\n</think>\n\n好的", None, "好的", "想想"),
        ("好的", "想想", "好的", "想想"),
        ("", "想想", None, "想想"),
        (None, "想想", None, "想想"),
        ("", None, "", None),
        ("标签 `</think>` 结束思考", None, "标签 `</think>` 结束思考", None),
        ("先答 <think>不算</think>", None, "先答 <think>不算</think>", None),
        ("<think>a</think>b</think>c", None, "b</think>c", "a"),
    ],
)
def test_every_form_of_thinking_is_told_from_the_answer(
    content: str | None, apart: str | None, answer: str | None, reasoning: str | None
) -> None:
    assert split_think(content, apart) == (answer, reasoning)


PARTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "\n", " ", "好", "`", "a<b"]),
    max_size=12,
)


@given(PARTS)
def test_splitting_never_fails_and_invents_no_text(parts: list[str]) -> None:
    content = "".join(parts)
    answer, reasoning = split_think(content)
    assert (answer or "") in content
    assert (reasoning or "") in content


@given(PARTS, PARTS, st.data())
def test_a_stream_cut_anywhere_gives_what_the_whole_gives(
    inside: list[str], after: list[str], data: st.DataObject
) -> None:
    content = "<think>" + "".join(inside) + "</think>" + "".join(after)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    stream = ThinkStream()
    pieces: list[Piece] = []
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        pieces += stream.feed(content[start:end])
    pieces += stream.close()
    whole = split_think(content)
    assert "".join(p.text for p in pieces if p.kind == "answer") == (whole.answer or "")
    thought = "".join(p.text for p in pieces if p.kind == "reasoning").strip()
    assert thought == (whole.reasoning or "")


def test_a_stream_without_thinking_is_all_answer_at_once() -> None:
    stream = ThinkStream()
    assert stream.feed("你好") == [Piece("answer", "你好")]
    assert stream.feed("<think>") == [Piece("answer", "<think>")]
