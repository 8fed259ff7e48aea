"""Several suites asked as one: their cases in one list, each knowing its suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from palmswift.errors import InputError, Problem
from palmswift.eval.asking.conversation import Case
from palmswift.eval.suites.dialogue import with_followers
from palmswift.eval.suites.sampling import select
from palmswift.eval.suites.suite import Suite
from palmswift.eval.verdicts.comparison import SuitePlan


class Part(NamedTuple):
    """One suite and those of its cases that are asked."""

    suite: Suite
    cases: list[Case]

    @property
    def plan(self) -> SuitePlan:
        """How the verdict treats it."""
        return SuitePlan(
            name=self.suite.name,
            role=self.suite.role,
            margin=self.suite.margin,
            primary=self.suite.primary,
            cases=len(self.suite.cases),
        )


def parts_of(suites: Sequence[Suite], max_samples: int | None = None, seed: int = 0) -> list[Part]:
    """Each suite with its cases, `max_samples` of each; ids differ over all suites.

    An id that an earlier suite has too gets its suite's name before it. InputError: two suites
    have the same name.
    """
    names = [suite.name for suite in suites]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(
            "suites are told apart by their names",
            [Problem("is the `name` of two suites", name) for name in twice],
            remedy="give one of them another `name:`",
        )
    seen: set[str] = set()
    parts = []
    for suite in suites:
        opening = [case for case in suite.cases if case.after is None]
        chosen = with_followers(suite.cases, select(opening, max_samples, seed))
        parts.append(Part(suite, [_renamed(case, suite.name, seen) for case in chosen]))
        seen |= {case.id for case in suite.cases}
    return parts


def clusters_of(parts: Sequence[Part]) -> dict[str, str]:
    """By case id, the case that opens its conversation: answers of one conversation depend on each
    other, so statistics count it as one."""
    opening: dict[str, str] = {}
    for part in parts:
        for case in part.cases:  # a case stands after the one it follows
            opening[case.id] = case.id if case.after is None else opening[case.after]
    return opening


def _renamed(case: Case, suite: str, taken: set[str]) -> Case:
    names = {"id": case.id, "after": case.after}
    changed = {key: f"{suite}/{name}" for key, name in names.items() if name in taken}
    return case.model_copy(update=changed) if changed else case
