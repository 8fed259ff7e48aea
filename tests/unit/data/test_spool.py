from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmswift.data.row import Place, Rejection
from palmswift.data.spool import Candidate, Spool

PLACE = Place("f.jsonl", 3, 2)
CANDIDATE = Candidate(b'{"messages":[]}', "alpaca", ("role_renamed",), (), {"instruction": "x"})


def test_rows_come_back_in_their_order_as_often_as_they_are_asked_for(tmp_path: Path) -> None:
    broken = Rejection(PLACE, "broken_json", "why", "{")
    rows: list[Candidate | Rejection] = [CANDIDATE, broken, CANDIDATE]
    with Spool(tmp_path / "rows") as spool:
        for row in rows:
            spool.add(row)
        assert list(spool) == rows
        assert list(spool) == rows


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(row=anything | st.sampled_from(["\ud800", {"a": "\udc80"}, {"n": 10**400}]))
def test_whatever_was_read_comes_back_as_it_was(
    row: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Spool(tmp_path_factory.mktemp("spool") / "rows") as spool:
        spool.add(CANDIDATE._replace(source=row))
        spool.add(Rejection(PLACE, "not_an_object", "why", row))
        candidate, rejection = spool
    assert isinstance(candidate, Candidate) and isinstance(rejection, Rejection)
    assert candidate.source == row and rejection.row == row


def test_an_empty_spool_has_no_rows(tmp_path: Path) -> None:
    with Spool(tmp_path / "rows") as spool:
        assert list(spool) == []
