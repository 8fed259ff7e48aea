from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_verdict import answers, scored

from palmswift.eval.suites.scoring import ScoredAnswer
from palmswift.eval.verdicts.comparison import (
    Options,
    SuitePlan,
    compare_measure,
    joined,
    measure_of,
    pair,
    turned,
    value_of,
)
from palmswift.eval.verdicts.intervals import tango_interval
from palmswift.eval.verdicts.power import mcnemar_cases, mcnemar_visible
from palmswift.eval.verdicts.significance import mcnemar_p
from palmswift.eval.verdicts.verdict import ShipVerdict, overall, ship_verdict
from palmswift.eval.verdicts.verdict_words import headline, p_words, sentences

TASK, GENERAL, SAFETY = (
    SuitePlan(name="t"),
    SuitePlan(name="g", role="general"),
    SuitePlan(name="s", role="safety"),
)


def of(gained: int, lost: int, both: int, neither: int = 0) -> tuple[list[bool], list[bool]]:
    """Passes of base and tuned with these counts."""
    base = [False] * gained + [True] * lost + [True] * both + [False] * neither
    tuned = [True] * gained + [False] * lost + [True] * both + [False] * neither
    return base, tuned


def verdict(
    *plans: tuple[SuitePlan, tuple[list[bool], list[bool]]],
    options: Options = Options(),  # noqa: B008 (a NamedTuple does not change)
    leaked: frozenset[str] = frozenset(),
    failed: tuple[str, ...] = (),
) -> ShipVerdict:
    """The verdict over suites of which each has its own cases."""
    base: list[ScoredAnswer] = []
    tuned: list[ScoredAnswer] = []
    suite_of: dict[str, str] = {}
    for plan, (first, second) in plans:
        base += answers("base", first, prefix=plan.name, tags=["all", plan.name])
        tuned += answers("tuned", second, prefix=plan.name, tags=["all", plan.name])
        suite_of.update({f"{plan.name}{n}": plan.name for n in range(len(first))})
    return ship_verdict(
        [plan for plan, _ in plans],
        suite_of,
        base,
        tuned,
        ("base", "tuned"),
        options,
        leaked=leaked,
        checked_files=["train.jsonl"] if leaked else [],
        alarms=failed,
    )


def test_a_clear_gain_helped_and_a_clear_loss_hurt() -> None:
    assert verdict((TASK, of(20, 2, 30))).word == "helped"
    assert verdict((TASK, of(2, 20, 30))).word == "hurt"
    assert verdict((TASK, of(6, 4, 30))).word == "no_difference"


def test_the_numbers_are_those_of_the_exact_test_and_tangos_interval() -> None:
    [found] = verdict((TASK, of(12, 3, 20, 15))).comparisons
    assert (found.cases, found.gained, found.lost) == (50, 12, 3)
    assert (found.base, found.tuned) == (23 / 50, 32 / 50)
    assert found.difference == pytest.approx(9 / 50)
    assert (found.low, found.high) == tango_interval(12, 3, 50)
    assert found.p == found.adjusted_p == mcnemar_p(12, 3)
    assert found.visible == mcnemar_visible(50, 16 / 52)
    assert found.needed == mcnemar_cases(0.03, 16 / 52)
    assert found.effect == 12.5 / 3.5
    assert found.not_worse is True


def test_several_suites_are_corrected_for_but_a_safety_suite_is_not() -> None:
    weak = of(9, 1, 30)  # p = 0.021
    assert verdict((TASK, weak)).word == "helped"
    other = SuitePlan(name="u")
    third = SuitePlan(name="v")
    found = verdict((TASK, weak), (other, of(3, 3, 30)), (third, of(3, 3, 30)))
    assert found.word == "no_difference"
    assert found.comparisons[0].adjusted_p == pytest.approx(3 * mcnemar_p(9, 1))
    found = verdict((TASK, weak), (SAFETY, of(1, 9, 30)), (third, of(3, 3, 30)))
    assert found.word == "unsafe"
    assert [c.adjusted_p for c in found.comparisons if c.suite == "s"] == [mcnemar_p(9, 1)]


def test_a_general_suite_is_unsafe_only_beyond_its_margin() -> None:
    helped = (TASK, of(20, 0, 30))
    small = of(0, 12, 988)  # shown, and less than five points
    assert verdict(helped, (GENERAL, small)).word == "hurt"
    assert verdict(helped, (GENERAL, of(0, 200, 800))).word == "unsafe"
    kept = verdict(helped, (GENERAL, of(2, 2, 996)))
    assert kept.word == "helped"
    assert [c.not_worse for c in kept.comparisons] == [True, True]
    unsure = verdict(helped, (GENERAL, of(1, 2, 27)))
    assert unsure.word == "helped"
    assert unsure.comparisons[1].not_worse is False
    assert any("not shown to be kept" in line.en for line in sentences(unsure))
    tight = GENERAL.model_copy(update={"margin": 0.001})
    assert verdict(helped, (tight, of(2, 2, 996))).comparisons[1].not_worse is False


def test_any_shown_decline_of_safety_and_any_failed_safety_gate_is_unsafe() -> None:
    assert verdict((SAFETY, of(0, 6, 1000))).word == "unsafe"
    assert verdict((SAFETY, of(0, 5, 1000))).word == "no_difference"
    found = verdict((TASK, of(20, 0, 30)), failed=("s: pass_rate: 0.9 is below 0.95",))
    assert found.word == "unsafe"
    assert any("0.9 is below 0.95" in line.en for line in sentences(found))


def test_a_better_general_suite_alone_has_not_helped() -> None:
    assert verdict((GENERAL, of(20, 0, 30)), (TASK, of(1, 1, 30))).word == "no_difference"


def test_without_what_was_trained_on_the_verdict_is_told_apart() -> None:
    base, tuned = of(30, 0, 20)
    found = verdict((TASK, (base, tuned)), leaked=frozenset(f"t{n}" for n in range(30)))
    assert found.word == "helped"
    assert found.without_leaked is not None
    assert found.without_leaked.word == "no_difference"
    assert found.leaked == 30
    assert headline(found).en == (
        "HELPED on all questions; without those that were trained on: NO DIFFERENCE SHOWN"
    )
    assert headline(found).zh == "有帮助（全部问题）；除去训练过的问题：未见差异"
    everything = verdict((TASK, (base, tuned)), leaked=frozenset(f"t{n}" for n in range(50)))
    assert everything.without_leaked is not None
    assert everything.without_leaked.word == "nothing"
    none = verdict((TASK, (base, tuned)), leaked=frozenset(["other"]))
    assert none.without_leaked is None and none.leaked == 0


def test_a_quick_look_gives_no_verdict_below_the_power_limit_but_says_unsafe() -> None:
    partly = TASK.model_copy(update={"cases": 1000})
    found = verdict((partly, of(20, 0, 10)))
    assert (found.word, found.quick) == ("quick", True)
    assert any("--max-samples" in line.en for line in sentences(found))
    whole = TASK.model_copy(update={"cases": 30})
    assert verdict((whole, of(20, 0, 10))).quick is False
    enough = verdict((partly, of(20, 2, 778)))
    assert (enough.word, enough.quick) == ("helped", True)
    unsafe = SAFETY.model_copy(update={"cases": 1000})
    assert verdict((unsafe, of(0, 20, 10))).word == "unsafe"
    patient = verdict((partly, of(20, 0, 10)), options=Options(sequential=True))
    assert patient.word == "helped"


def test_sequential_p_values_are_larger_and_show_no_margin() -> None:
    fixed, looked = (
        verdict((TASK, of(9, 1, 30)), options=Options(sequential=s)).comparisons[0]
        for s in (False, True)
    )
    assert fixed.p is not None and looked.p is not None
    assert fixed.p < 0.05 < looked.p
    assert looked.not_worse is None


def test_errors_are_left_out_in_pairs_and_counted() -> None:
    base = answers("base", [True, None, True, False])
    tuned = answers("tuned", [False, True, None, False])
    pairing = joined(pair(base, tuned, "pass_rate").values())
    assert (pairing.base, pairing.tuned) == ([1.0, 0.0], [0.0, 0.0])
    assert (pairing.answers, pairing.left_out) == (2, 2)


def test_repeats_of_a_case_are_one_case() -> None:
    base = answers("base", [[True, False, True]] * 10)
    tuned = answers("tuned", [[True, True, True]] * 10)
    found = compare_measure(TASK, "pass_rate", joined(pair(base, tuned, "pass_rate").values()))
    assert (found.cases, found.answers, found.gained) == (10, 30, 10)
    assert found.p == pytest.approx(2 / 2**10)
    assert found.difference == pytest.approx(1 / 3)


def test_the_turns_of_a_conversation_are_one_case() -> None:
    base, tuned = answers("base", [True] * 6), answers("tuned", [False] * 6)
    clusters = {f"c{n}": f"c{n // 3 * 3}" for n in range(6)}
    found = joined(pair(base, tuned, "pass_rate", clusters).values())
    assert (len(found.base), found.answers, found.single) == (2, 6, False)
    assert compare_measure(TASK, "pass_rate", found).p == 0.5


def test_a_score_that_is_better_when_lower_is_turned() -> None:
    draw = np.random.default_rng(0)
    before = draw.uniform(2, 3, 60)
    after = before + 0.4 + draw.normal(0, 0.1, 60)
    plan = GENERAL.model_copy(update={"primary": "nats_per_token"})
    base, tuned = scored("base", "nats_per_token", before), scored("tuned", "nats_per_token", after)
    found = ship_verdict([plan], {f"c{n}": "g" for n in range(60)}, base, tuned, ("base", "tuned"))
    [drift] = found.comparisons
    assert drift.lower_is_better
    assert drift.difference == pytest.approx(0.4, abs=0.05)
    assert drift.low is not None and drift.high is not None and drift.difference is not None
    assert 0.3 < drift.low < drift.difference < drift.high
    assert turned(drift)[0] == -drift.difference
    assert found.word == "unsafe", "the loss of general text rose beyond the margin"


def test_the_measure_is_the_suites_own_else_passes_else_the_best_score() -> None:
    both = [*answers("a", [True]), *scored("a", "chrf", [50.0], prefix="d")]
    assert measure_of(both, TASK) == "pass_rate"
    assert measure_of(both, TASK.model_copy(update={"primary": "chrf"})) == "chrf"
    only = [*scored("a", "exact_match", [0.0]), *scored("a", "chrf", [50.0])]
    assert measure_of(only, TASK) == "chrf"
    assert measure_of([*only, *scored("a", "judge.tone", [4.0])], TASK) == "chrf"
    assert measure_of(scored("a", "judge.tone", [4.0]), TASK) == "judge.tone"
    assert measure_of([], TASK) == "pass_rate"
    graded = ScoredAnswer(endpoint="a", case="c", repeat=0, state="answered", score=0.5)
    assert measure_of([graded], TASK) == "score"
    assert value_of(graded, "score") == 0.5
    assert value_of(graded, "pass_rate") is None


def test_nothing_in_common_is_nothing_to_compare() -> None:
    found = ship_verdict(
        [TASK],
        {"c0": "t", "d0": "t"},
        answers("base", [True]),
        answers("tuned", [True], prefix="d"),
        ("base", "tuned"),
    )
    assert found.word == "nothing"
    assert any("no case has an answer of both" in line.en for line in sentences(found))
    assert found.comparisons[0].p is None
    assert overall([]) == "nothing"


def test_tags_inform_and_one_that_is_the_whole_suite_is_left_out() -> None:
    base = [
        *answers("base", [False] * 10, tags=["x"]),
        *answers("base", [True] * 10, prefix="d", tags=["y"]),
    ]
    tuned = [
        *answers("tuned", [True] * 10, tags=["x"]),
        *answers("tuned", [True] * 10, prefix="d", tags=["y"]),
    ]
    suite_of = {a.case: "t" for a in base}
    found = ship_verdict([TASK], suite_of, base, tuned, ("base", "tuned"))
    assert [(c.tag, c.cases, c.word) for c in found.comparisons] == [
        (None, 20, "helped"),
        ("x", 10, None),
        ("y", 10, None),
    ]
    assert [c.tag for c in verdict((TASK, of(5, 5, 5))).comparisons] == [None]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_swapping_the_models_swaps_the_word(gained: int, lost: int, both: int) -> None:
    swapped = {"helped": "hurt", "hurt": "helped", "no_difference": "no_difference"}
    one = verdict((TASK, of(gained, lost, both)))
    other = verdict((TASK, of(lost, gained, both)))
    assert other.word == swapped[one.word]


def test_the_words_say_what_n_shows_and_what_it_would_take() -> None:
    found = verdict((TASK, of(3, 2, 45)))
    said = "\n".join(line.en for line in sentences(found))
    c = found.comparisons[0]
    assert c.visible is not None
    assert f"to see 3 points you need N = {c.needed:,} (80 % power)" in said
    assert f"50 cases show differences from {100 * c.visible:.1f} points on" in said
    assert "Not looked for in the training data" in said
    tiny = "\n".join(line.en for line in sentences(verdict((TASK, of(1, 1, 2)))))
    assert "4 cases cannot show any difference" in tiny
    chinese = "\n".join(line.zh for line in sentences(found))
    assert "需要 N =" in chinese
    assert [p_words(p) for p in (None, 0.00001, 0.0042, 0.31)] == [
        "–",
        "< 0.0001",
        "0.0042",
        "0.310",
    ]
