"""Whatever files come in, each row is found once: trained on, held out, or rejected.

The same checks on thousands of files: benchmarks/data/fuzz.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from support_data import CharacterJudge
from support_fuzz import (
    Case,
    Raw,
    Repeated,
    cases,
    check_again,
    check_case,
    check_torn,
    repeated,
    torn,
)

some = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=20)


@pytest.fixture(autouse=True, scope="module")
def characters_are_tokens() -> Any:
    """ms-swift, whose import takes half a minute, is asked in tests/integration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palmswift.data.gate.TemplateJudge", CharacterJudge)
        yield


@some
@given(cases)
def test_every_row_is_found_once_and_in_its_order(case: Case) -> None:
    check_case(case)


@some
@given(torn)
def test_any_bytes_are_accounted_for_or_refused(raw: Raw) -> None:
    check_torn(raw)


@some
@given(repeated)
def test_what_came_through_comes_through_again_unchanged(given: Repeated) -> None:
    check_again(given)
