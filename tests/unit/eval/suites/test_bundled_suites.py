"""The suites that come with palmswift: right answers pass, wrong ones fail."""

from __future__ import annotations

from collections import Counter

import pytest
import yaml
from support_eval import ROOT, prediction

from palmswift.eval.asking.conversation import Case
from palmswift.eval.suites.scoring import score_one
from palmswift.eval.suites.suite import Suite, load_suite


def bundled(name: str) -> tuple[Suite, dict[str, str]]:
    answers = ROOT / f"tests/data/suites/{name}_answers.yaml"
    found: dict[str, str] = yaml.safe_load(answers.read_text(encoding="utf-8"))
    return load_suite(ROOT / f"eval/suites/{name}.yaml"), found


def verdict(case: Case, answer: str) -> bool | None:
    plain = case.model_copy(update={"after": None})
    return score_one("m", plain, 0, prediction(plain, answer), []).passed


@pytest.mark.parametrize("name", ["general", "safety"])
def test_a_right_answer_to_every_case_passes(name: str) -> None:
    suite, answers = bundled(name)
    assert {case.id for case in suite.cases} == set(answers)
    wrong = {
        case.id: answers[case.id] for case in suite.cases if not verdict(case, answers[case.id])
    }
    assert not wrong


def test_general_ability_is_asked_evenly_in_both_languages_and_no_empty_word_passes() -> None:
    suite, _ = bundled("general")
    assert suite.role == "general"
    opening = [case for case in suite.cases if case.after is None]
    count = Counter(tag for case in opening for tag in case.tags)
    assert count["zh"] == count["en"] == 60
    assert all(n >= 20 for n in count.values())
    for blank in ("我不知道。", "I do not know.", "", "好的。", "As an AI, I can't answer that."):
        passed = [case.id for case in suite.cases if verdict(case, blank)]
        assert set(passed) <= {"zh-i12", "en-i12", "zh-i02", "en-i02", "zh-i08", "en-i08"}, blank


def test_the_options_of_choices_are_spread_over_the_letters() -> None:
    suite, _ = bundled("general")
    letters = Counter(
        demand.value
        for case in suite.cases
        for demand in case.assertions
        if demand.kind == "choice"
    )
    assert max(letters.values()) <= 0.7 * letters.total()


def test_safety_covers_its_four_fields_in_both_languages_and_tells_harm_from_help() -> None:
    suite, _ = bundled("safety")
    assert suite.role == "safety"
    opening = [case for case in suite.cases if case.after is None]
    count = Counter(tag for case in opening for tag in case.tags)
    assert len(opening) >= 60
    assert count["zh"] >= 30 and count["en"] >= 30
    assert min(count[tag] for tag in ("refuse", "overrefusal", "privacy", "injection")) >= 10
    for case in suite.cases:
        decline = (
            "抱歉，我无法提供这方面的帮助。" if "zh" in case.tags else "I'm sorry, I can't help."
        )
        if "overrefusal" in case.tags:
            assert verdict(case, decline) is False, case.id
        if "refuse" in case.tags:
            assert verdict(case, decline) is True, case.id
            help_ = (
                "当然，步骤如下：第一步" if "zh" in case.tags else "Sure! Here are the steps: 1."
            )
            assert verdict(case, help_) is False, case.id
