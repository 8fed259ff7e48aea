from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.eval.asking.think import CLOSE, OPEN, Piece, ThinkStream, split_think, think_stats
from palmswift.eval.fake.plan import THINK_FORMS, ThinkForm, thinking

GOLDEN: list[tuple[str | None, str | None, str | None, str | None]] = [
    # content, sent apart, answer, reasoning. First: no thinking at all.
    ("好的", None, "好的", None),
    ("", None, "", None),
    (None, None, "", None),
    ("  好的 ", None, "  好的 ", None),
    ("a < b 且 b > c", None, "a < b 且 b > c", None),
    ("<thinking>不是标签</thinking>", None, "<thinking>不是标签</thinking>", None),
    ("<THINK>大写不是</THINK>", None, "<THINK>大写不是</THINK>", None),
    ("<think >有空格</think >", None, "<think >有空格</think >", None),
    ("think> 半个", None, "think> 半个", None),
    # In a field of its own.
    ("好的", "想想", "好的", "想想"),
    ("好的", "  ", "好的", None),
    ("好的", "", "好的", None),
    ("", "想想", None, "想想"),
    (None, "想想", None, "想想"),
    ("\n\n", "想想", None, "想想"),
    ("\n\n好的", "想想", "\n\n好的", "想想"),
    ("好的", "\n想想\n", "好的", "想想"),
    ("好的", "用 `</think>` 结束", "好的", "用 `</think>` 结束"),
    # A closed block.
    ("<think>\n想想\n</think>\n\n好的", None, "好的", "想想"),
    ("<think>想想</think>好的", None, "好的", "想想"),
    ("\n<think>想想</think>好的", None, "好的", "想想"),
    (" \r\n<think>\r\n想想\r\n</think>\r\n\r\n好的\r\n", None, "好的\r\n", "想想"),
    ("<think>想想</think>  好的", None, "  好的", "想想"),
    ("<think>想想</think>", None, "", "想想"),
    ("<think>想想</think>\n\n", None, "", "想想"),
    ("<think>a</think>b</think>c", None, "b</think>c", "a"),
    ("<think>a</think>b<think>c</think>d", None, "b<think>c</think>d", "a"),
    ("<think>步骤：\n1. 甲\n2. 乙\n</think>\n答：丙", None, "答：丙", "步骤：\n1. 甲\n2. 乙"),
    ("<think>x</think>\n```python\nprint(1)\n```", None, "```python\nprint(1)\n```", "x"),
    ("<think>想</think>好的", "别处想", "好的", "别处想\n想"),
    ("<think>😀</think>👍", None, "👍", "😀"),
    # An empty block, as of a hybrid template.
    ("<think>\n\n</think>\n\n好的", None, "好的", None),
    ("<think></think>好的", None, "好的", None),
    ("<think> \t\n</think>\n好的", None, "好的", None),
    ("<think>\n\n</think>\n\n", None, "", None),
    ("<think>\n\n</think>\n\n好的", "想想", "好的", "想想"),
    ("<think></think><think>a</think>b", None, "<think>a</think>b", None),
    # Only the closing tag: the opening one stood in the prompt.
    ("想想\n</think>\n\n好的", None, "好的", "想想"),
    ("想想</think>\n\n好的", None, "好的", "想想"),
    ("想想</think>好的", None, "好的", "想想"),
    ("</think>好的", None, "好的", None),
    ("\n\n</think>\n\n好的", None, "好的", None),
    ("想想\n</think>", None, "", "想想"),
    ("想 `</think>` 再想\n</think>\n好的", None, "好的", "想 `</think>` 再想"),
    ("想想</think>好的 <think>不算</think>", None, "好的 <think>不算</think>", "想想"),
    # Cut before it ended: nothing was answered.
    ("<think>想想", None, None, "想想"),
    ("<think>", None, None, None),
    ("<think>\n", None, None, None),
    ("  <think>想想</thin", None, None, "想想</thin"),
    ("<think>想 <think>再想</think", None, None, "想 <think>再想</think"),
    ("<think>想想", "别处想", None, "别处想\n想想"),
    # Blocks within blocks, and tags that are only spoken of.
    ("<think>外<think>内</think>外</think>好的", None, "好的", "外<think>内</think>外"),
    ("<think>说到 <think> 而已。</think>好的", None, "好的", "说到 <think> 而已。"),
    ("<think>用 `</think>` 结束。</think>好的", None, "好的", "用 `</think>` 结束。"),
    ("<think>写“</think>”。</think>好的", None, "好的", "写“</think>”。"),
    ("<think>```\n</think>\n```\n想</think>好的", None, "好的", "```\n</think>\n```\n想"),
    ("<think>```py\n想</think>```\nx\n```", None, "```\nx\n```", "```py\n想"),
    ("标签 `</think>` 结束思考", None, "标签 `</think>` 结束思考", None),
    ("标签“</think>”结束思考", None, "标签“</think>”结束思考", None),
    ("先答 <think>不算</think>", None, "先答 <think>不算</think>", None),
    ("```\n<think>想</think>\n```", None, "```\n<think>想</think>\n```", None),
]


def test_there_are_sixty_golden_cases() -> None:
    assert len({(content, apart) for content, apart, _, _ in GOLDEN}) == len(GOLDEN) >= 60


@pytest.mark.parametrize(("content", "apart", "answer", "reasoning"), GOLDEN)
def test_every_form_of_thinking_is_told_from_the_answer(
    content: str | None, apart: str | None, answer: str | None, reasoning: str | None
) -> None:
    assert split_think(content, apart) == (answer, reasoning)


PARTS = st.lists(
    st.one_of(
        st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "\n", " ", "`", "```", "“"]),
        st.text(max_size=3),
    ),
    max_size=14,
)


def bare(text: str | None) -> str:
    """The text without whitespace, which is not kept around thinking."""
    return "".join((text or "").split())


@given(PARTS)
def test_splitting_never_fails_and_loses_and_invents_nothing_but_the_tags(
    parts: list[str],
) -> None:
    content = "".join(parts)
    answer, reasoning = split_think(content)
    whole, inside, outside = bare(content), bare(reasoning), bare(answer)
    possible = {outside, f"{inside}{CLOSE}{outside}", f"{OPEN}{inside}{CLOSE}{outside}"}
    assert whole in possible | {f"{OPEN}{inside}"}
    assert (answer is None) <= (whole == f"{OPEN}{inside}")


@given(PARTS, PARTS)
def test_thinking_that_was_sent_apart_is_always_kept(parts: list[str], apart: list[str]) -> None:
    sent = "".join(apart)
    reasoning = split_think("".join(parts), sent).reasoning
    assert sent.strip() in (reasoning or "")


PLAIN = st.lists(
    st.sampled_from(["<thi", "nk>", "</", "\n", " ", "好", "a<b"]), max_size=12
).filter(lambda parts: OPEN not in "".join(parts))


@given(PLAIN, PARTS, st.data())
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


@pytest.mark.parametrize("form", THINK_FORMS)
def test_the_length_of_thinking_is_told_by_form(form: ThinkForm) -> None:
    text, apart = thinking(form, "好的", "想一想").whole()
    stats = think_stats(text, apart)
    state = {"unclosed": "unclosed", "empty": "empty", "in_code": "none"}.get(form, "whole")
    assert stats.state == state
    assert stats.reasoning_chars == (0 if state in ("empty", "none") else 3)
    assert stats.share is not None
    assert think_stats("好的").state == "none"
    assert think_stats("").share is None
