"""What the tests of verdicts and reports share: answers by what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from palmswift.eval.suites.scoring import ScoredAnswer


def answers(
    label: str,
    passed: Iterable[bool | Sequence[bool] | None],
    *,
    prefix: str = "c",
    tags: Sequence[str] = (),
) -> list[ScoredAnswer]:
    """An answer a case, passed or not; a sequence is a case's repeats, None one without a reply."""
    made = []
    for n, one in enumerate(passed):
        repeats: list[bool | None] = list(one) if isinstance(one, Sequence) else [one]
        for repeat, value in enumerate(repeats):
            made.append(
                ScoredAnswer(
                    endpoint=label,
                    case=f"{prefix}{n}",
                    repeat=repeat,
                    state="error" if value is None else "answered",
                    answer=None if value is None else "x",
                    passed=value,
                    tags=list(tags),
                )
            )
    return made


def scored(
    label: str, name: str, values: Iterable[float], *, prefix: str = "c"
) -> list[ScoredAnswer]:
    """An answer a case with a score of this name."""
    return [
        ScoredAnswer(
            endpoint=label, case=f"{prefix}{n}", repeat=0, state="answered", scores={name: value}
        )
        for n, value in enumerate(values)
    ]
