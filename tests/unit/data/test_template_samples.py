from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from palmswift.data.template_samples import Reservoir, spans


def decode(ids: Sequence[int]) -> str:
    """As a byte-level tokenizer with a token a byte."""
    return bytes(ids).decode("utf-8", errors="replace")


@given(st.text(), st.data())
def test_spans_give_back_the_text_and_count_every_token(text: str, data: st.DataObject) -> None:
    ids = list(text.encode("utf-8", errors="replace"))
    count = len(ids)
    trained = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    labels = [token if flag else -100 for token, flag in zip(ids, trained, strict=True)]
    found = spans(ids, labels, decode)
    flags = [span.trained for span in found for _ in range(span.n_tokens)]
    assert flags == trained
    if all(len(character.encode()) == 1 for character in text):
        assert "".join(span.text for span in found) == text


def test_a_character_whose_bytes_are_divided_stands_whole_in_the_later_span() -> None:
    ids = list("ab好c".encode())
    found = spans(ids, [-100] * 3 + ids[3:], decode)
    assert [(span.text, span.n_tokens, span.trained) for span in found] == [
        ("ab", 3, False),
        ("好c", 3, True),
    ]


def test_a_reservoir_keeps_all_rows_of_a_few_and_some_of_many_in_their_order() -> None:
    few = Reservoir(5)
    many = Reservoir(5)
    for index in range(1000):
        if index < 3:
            few.offer(index, {})
        many.offer(index, {})
    assert [index for index, _ in few.rows] == [0, 1, 2]
    kept = [index for index, _ in many.rows]
    assert len(kept) == 5 and kept == sorted(kept) and kept[-1] > 10
