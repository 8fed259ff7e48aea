from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.eval.asking.sse import EventStream

WIRE = (
    b"\xef\xbb\xbf: a comment\r\n\r\nevent: message\r\ndata: one\r\nid: 7\r\n\r\n"
    b"data:two\n\ndata: three\ndata:  four\n\n\n\ndata\n\ndata: \n\ndata: five\r\rdata: six"
)
EVENTS = [b"one", b"two", b"three\n four", b"", b"five", b"six"]


@given(st.lists(st.integers(0, len(WIRE)), max_size=12))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    stream = EventStream()
    found: list[bytes] = []
    places = [0, *sorted(cuts), len(WIRE)]
    for start, end in itertools.pairwise(places):
        found += stream.feed(WIRE[start:end])
    assert found == EVENTS[:-1]
    assert stream.close() == EVENTS[-1:]


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    stream = EventStream()
    stream.feed(data)
    stream.close()


def test_a_line_without_end_is_refused_before_it_fills_memory() -> None:
    stream = EventStream()
    with pytest.raises(ValueError, match="16 MiB"):
        for _ in range(1000):
            stream.feed(b"x" * (1 << 20))
