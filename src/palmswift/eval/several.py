"""Several suites asked as one: their cases in one list, each knowing its suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from palmswift.errors import InputError, Problem
from palmswift.eval.comparison import SuitePlan
from palmswift.eval.conversation import Case
from palmswift.eval.sampling import select
from palmswift.eval.suite import Suite


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
        chosen = select(suite.cases, max_samples, seed)
        renamed = [
            case.model_copy(update={"id": f"{suite.name}/{case.id}"}) if case.id in seen else case
            for case in chosen
        ]
        seen |= {case.id for case in suite.cases}
        parts.append(Part(suite, renamed))
    return parts
