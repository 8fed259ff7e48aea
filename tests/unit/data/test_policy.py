from __future__ import annotations

from typing import get_args

import pytest

from palmswift.data.policy import CHANGES, CHECKS, Action, Notes, Policy, kind_of
from palmswift.data.row import RowError
from palmswift.errors import InputError


def test_the_first_action_of_a_check_is_done_unless_a_rule_says_otherwise() -> None:
    policy = Policy({"boilerplate": "reject"})
    assert policy.action("boilerplate") == "reject"
    assert policy.action("mojibake") == CHECKS["mojibake"].actions[0] == "keep"


def test_all_bad_rules_are_told_at_once_with_what_may_be_said() -> None:
    with pytest.raises(InputError) as caught:
        Policy({"no_such_check": "reject", "no_answer": "keep", "mojibake": "reject"})
    told = str(caught.value)
    assert "data.rules.no_such_check" in told
    assert "data.rules.no_answer" in told
    assert "one of reject" in told
    assert "mojibake" not in told


def test_every_code_has_words_in_both_languages_and_known_actions() -> None:
    for check in CHECKS.values():
        assert check.en.endswith(".")
        assert any("\u4e00" <= character <= "\u9fff" for character in check.zh)
        assert check.actions
        assert set(check.actions) <= set(get_args(Action))
    for label in CHANGES.values():
        assert label.en.endswith(".")
        assert label.zh


def test_what_is_found_is_rejected_noted_or_left_to_mend() -> None:
    notes = Notes(Policy({"mojibake": "reject"}))
    with pytest.raises(RowError, match="mojibake"):
        notes.found("mojibake", "turn 1")
    assert notes.found("boilerplate", "turn 1") == "keep"
    assert notes.found("control_tokens", "turn 1") == "neutralise"
    assert notes.findings == {"boilerplate"}


def test_preference_tasks_share_their_kind_of_rows() -> None:
    assert [kind_of(task) for task in ("dpo", "orpo", "simpo", "sft", "grpo")] == [
        *("dpo", "dpo", "dpo", "sft", "grpo"),
    ]
