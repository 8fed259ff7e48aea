from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.data.turns import Fitted, TooLong, exchanges, fit, part_of
from palmswift.data.verdict import Counts, Measured


def dialogue(system: str | None, *turns: tuple[str, str]) -> dict[str, Any]:
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}


def characters(row: dict[str, Any]) -> int:
    return sum(len(message["content"]) for message in row["messages"])


def measure(row: dict[str, Any]) -> Measured:
    return Measured((Counts(characters(row), 1, True, True),))


ROW = dialogue("sys", ("ab", "cd"), ("efg", "h"), ("i", "j"))


def ranges(limit: int, policy: Literal["truncate", "split"]) -> list[tuple[int, int]]:
    fitted = fit(ROW, measure, limit, policy)
    assert isinstance(fitted, list)
    return [(part.start, part.stop) for part in fitted]


def test_truncating_drops_the_oldest_turns_until_the_rest_fits_with_the_system_message() -> None:
    assert ranges(9, "truncate") == [(3, 7)]
    assert ranges(8, "truncate") == [(5, 7)]


def test_splitting_keeps_every_turn_and_gives_each_part_the_system_message() -> None:
    assert ranges(9, "split") == [(1, 3), (3, 7)]
    assert ranges(8, "split") == [(1, 3), (3, 5), (5, 7)]
    assert part_of(ROW, 3, 5) == dialogue("sys", ("efg", "h"))


@pytest.mark.parametrize("policy", ["truncate", "split"])
def test_one_question_and_answer_that_does_not_fit_alone_is_told(
    policy: Literal["truncate", "split"],
) -> None:
    row = dialogue(None, ("a", "b"), ("a" * 9, "b"))
    assert fit(row, measure, 8, policy) == TooLong(2, 4, 10)


def test_a_tool_call_and_its_response_stay_with_their_question() -> None:
    roles = ["user", "tool_call", "tool_response", "assistant", "user", "assistant"]
    assert exchanges([{"role": role, "content": ""} for role in roles]) == [0, 4]


def test_what_else_a_row_has_goes_with_its_part() -> None:
    assert part_of({**ROW, "rejected_response": "x"}, 5, 7)["rejected_response"] == "x"


turn = st.tuples(st.text(max_size=9), st.text(max_size=9))
rows = st.builds(
    lambda system, turns: dialogue(system, *turns),
    st.none() | st.text(max_size=5),
    st.lists(turn, min_size=1, max_size=12),
)


@given(rows, st.integers(1, 60))
def test_parts_fit_follow_each_other_and_could_not_be_longer(
    row: dict[str, Any], limit: int
) -> None:
    starts = [*exchanges(row["messages"]), len(row["messages"])]
    alone = [characters(part_of(row, start, stop)) for start, stop in pairwise(starts)]
    for policy in ("truncate", "split"):
        fitted = fit(row, measure, limit, policy)
        if isinstance(fitted, TooLong):
            assert fitted.n_tokens > limit and fitted.n_tokens in alone
            continue
        assert all(part.measured.longest <= limit for part in fitted)
        assert fitted[-1].stop == len(row["messages"])
        if policy == "split":
            assert fitted[0].start == starts[0]
            assert all(a.stop == b.start for a, b in pairwise(fitted))
            assert all(_is_longest(row, part, starts, limit) for part in fitted[:-1])
        elif (at := starts.index(fitted[0].start)) > 0:
            assert characters(part_of(row, starts[at - 1], starts[-1])) > limit


def _is_longest(row: dict[str, Any], part: Fitted, starts: list[int], limit: int) -> bool:
    longer = part_of(row, part.start, starts[starts.index(part.stop) + 1])
    return characters(longer) > limit
