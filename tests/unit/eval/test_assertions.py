from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from palmswift.eval.assertions import Assertion, check

ADAPTER: TypeAdapter[Assertion] = TypeAdapter(Assertion)


@pytest.mark.parametrize(
    ("assertion", "good", "bad"),
    [
        ({"kind": "exact"}, " 周一休诊。\n", "周一休诊"),
        ({"kind": "exact", "value": "八点"}, "八点", "周一休诊。"),
        ({"kind": "contains", "value": "休诊"}, "周一休诊。", "周一开诊。"),
        ({"kind": "contains_any", "values": ["8点", "八点"]}, "到八点", "到九点"),
        ({"kind": "contains_all", "values": ["8", "点"]}, "8点", "8 o'clock"),
        ({"kind": "not_contains", "value": "药"}, "请来面诊", "吃药"),
        ({"kind": "regex", "pattern": r"20[:：]00"}, "到20：00", "到20-00"),
        ({"kind": "max_chars", "value": 2}, " 好的 ", "好的。"),
        ({"kind": "min_chars", "value": 2}, "好的", " 好 "),
    ],
)
def test_each_kind_tells_a_good_answer_from_a_bad_one(
    assertion: dict[str, Any], good: str, bad: str
) -> None:
    parsed = ADAPTER.validate_python(assertion)
    assert check(parsed, good, "周一休诊。").passed
    assert not check(parsed, bad, "周一休诊。").passed


@pytest.mark.parametrize(
    "assertion",
    [
        {"kind": "contians", "value": "a"},
        {"kind": "contains"},
        {"kind": "contains", "value": ""},
        {"kind": "contains_any", "values": []},
        {"kind": "regex", "pattern": "("},
        {"kind": "max_chars", "value": -1},
        {"kind": "exact", "text": "a"},
    ],
)
def test_a_malformed_assertion_is_refused(assertion: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(assertion)


def test_exact_without_any_text_to_compare_with_never_passes() -> None:
    assert not check(ADAPTER.validate_python({"kind": "exact"}), "", None).passed
