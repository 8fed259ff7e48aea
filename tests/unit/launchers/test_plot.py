"""Curves of characters: within their frame, with the highest value at the top."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palmswift.launchers.plot import braille

BLANK = "\u2800"


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(allow_subnormal=False)), max_size=300),
    st.integers(1, 80),
    st.integers(1, 8),
)
def test_a_curve_keeps_to_its_frame(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    lines = braille(sorted(points), width, height)
    assert [len(line) for line in lines] == [width] * height
    assert all(0x2800 <= ord(character) <= 0x28FF for line in lines for character in line)


def test_a_falling_curve_goes_from_the_upper_left_to_the_lower_right_without_a_gap() -> None:
    lines = braille([(0.0, 9.0), (1.0, 1.0)], 10, 3)
    assert lines[0][0] != BLANK and lines[0][-1] == BLANK
    assert lines[-1][-1] != BLANK and lines[-1][0] == BLANK
    for column in range(10):
        assert any(line[column] != BLANK for line in lines)


def test_a_run_that_is_half_done_fills_half_the_frame() -> None:
    [line] = braille([(0.0, 2.0), (0.5, 1.0)], 10, 1)
    assert BLANK not in line[:5]
    assert set(line[6:]) == {BLANK}


def test_a_value_that_is_not_finite_leaves_a_gap() -> None:
    [line] = braille([(0.0, 1.0), (0.5, float("nan")), (1.0, 1.0)], 9, 1)
    assert line[0] != BLANK and line[-1] != BLANK
    assert set(line[1:-1]) == {BLANK}
