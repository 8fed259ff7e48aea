"""What rows are to each other: near duplicates, contradictions, answers of unusual length."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from palmswift.data.index import RowIndex
from palmswift.data.near import VALUES, agreement, clusters, connected
from palmswift.data.policy import Policy
from palmswift.data.row import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

CODES = (
    "mixed_types",
    "near_in_train",
    "near_duplicate",
    "conflicting_answers",
    "unusual_length",
)
"""The checks of this module, in the order in which they are made."""

EXAMPLES = 5
"""Pairs that are shown of near duplicates and of contradictions."""

_LEAST_ROWS = 20
"""Fewer rows have no usual length."""

_SPREADS, _LEAST_SPREAD = 6.0, 0.25
"""An answer is unusual when the logarithm of its length is more than 6 median absolute deviations
from the median (4 standard deviations, were it normal); a deviation counts as 0.25 at least, so
that an answer has to be 4.5 times shorter or longer than the median whatever the others are."""


class NearCounts(NamedTuple):
    """The clusters of at least two rows, and pairs of rows from the largest, with similarity."""

    clusters: int
    rows: int
    largest: int
    pairs: list[tuple[int, int, float]]


class ConflictCounts(NamedTuple):
    """The questions with several answers, and pairs of rows that contradict each other."""

    questions: int
    rows: int
    pairs: list[tuple[int, int]]


class Relations:
    """The rows that were found, and those that are still alive after the checks that reject."""

    def __init__(
        self, index: RowIndex, alive: NDArray[np.bool_], policy: Policy, kind: Kind
    ) -> None:
        """Make all the checks on the rows that are `alive`, which is changed in place."""
        import numpy as np

        self._index = index
        self._alive = alive
        self._policy = policy
        self._cluster = np.arange(len(index))
        self._found = {code: np.full(len(index), -1, np.int64) for code in CODES}
        self._median = 0
        self._mixed: dict[int, str] = {}
        self._find_mixed_types()
        self.near = self._find_near()
        self.conflicts = self._find_conflicts()
        if kind != "grpo":
            self._find_unusual_lengths()

    def found(self, code: str) -> NDArray[np.bool_]:
        """The rows that a check found, whether they are kept or not."""
        found: NDArray[np.bool_] = self._found[code] >= 0
        return found

    def detail(self, code: str, row: int) -> str:
        """What is said about a row that the check found."""
        if code == "mixed_types":
            return self._mixed[int(self._index.types[row])]
        if code == "unusual_length":
            length = int(self._index.length[row])
            return f"{length} characters, where half of the answers have {self._median} or fewer"
        other = self._index.place(int(self._found[code][row]))
        if code == "conflicting_answers":
            return f"{other} says otherwise"
        return f"nearly the same as {other}"

    def groups(self) -> Integers:
        """For each living row the first of the rows that must stay together with it.

        Those are its near duplicates, and the rows that ask the same.
        """
        import numpy as np

        rows = np.flatnonzero(self._alive)
        question = self._index.question[rows]
        order = np.argsort(question, kind="stable")
        same = (question[order[1:]] == question[order[:-1]]) & (question[order[1:]] != 0)
        _, first, number = np.unique(self._cluster[rows], return_index=True, return_inverse=True)
        return connected(first[number], order[:-1][same], order[1:][same])

    def _reject(self, code: str) -> bool:
        """Whether rows that are alive are rejected for the finding."""
        if self._policy.action(code) != "reject":
            return False
        lost = self.found(code) & self._alive
        self._alive &= ~lost
        return bool(lost.any())

    def _find_mixed_types(self) -> None:
        """Rows whose extra columns hold another type than most rows, all of which Arrow refuses."""
        import numpy as np

        sets = list(self._index.type_sets)
        rows_of = np.bincount(self._index.types[self._alive], minlength=len(sets))
        counts: dict[str, Counter[str]] = {}
        for types, rows in zip(sets, rows_of.tolist(), strict=True):
            for path, name in types:
                counts.setdefault(path, Counter())[name] += rows
        usual = {path: max(sorted(names), key=names.__getitem__) for path, names in counts.items()}
        for number, types in enumerate(sets):
            for path, name in sorted(types):
                if name != usual[path]:
                    self._mixed[number] = f"`{path}` is {name} here, {usual[path]} in most rows"
        if self._mixed:
            mixed = np.isin(self._index.types, list(self._mixed)) & self._alive
            self._found["mixed_types"][mixed] = np.flatnonzero(mixed)
            self._reject("mixed_types")

    def _find_near(self) -> NearCounts | None:
        """Clusters anew until no row is rejected, so that the kept rows would pass once more."""
        import numpy as np

        index = self._index
        counts = None
        while True:
            rows = np.flatnonzero(self._alive)
            whole = len(rows) == len(index)
            sketch = index.sketches if whole else index.sketches[rows]
            cluster = clusters(sketch, index.digest[rows])
            counts = counts or _near_counts(rows, cluster, sketch)
            first = rows[cluster]
            self._cluster[rows] = first
            in_train = index.in_val[rows] & ~index.in_val[first]
            for code, chosen in (("near_in_train", in_train), ("near_duplicate", ~in_train)):
                later = (first != rows) & chosen
                self._found[code][rows] = np.where(later, first, -1)
            if not (self._reject("near_in_train") | self._reject("near_duplicate")):
                return counts

    def _find_conflicts(self) -> ConflictCounts | None:
        import numpy as np

        index = self._index
        rows = np.flatnonzero(self._alive & (index.claim != 0))
        claim, digest = index.claim[rows], index.digest[rows]
        order = np.lexsort((digest, claim))
        begins = np.flatnonzero(np.append(True, np.diff(claim[order]) != 0)) if len(rows) else order
        sizes = np.diff(np.append(begins, len(rows)))
        lowest, highest = rows[order[begins]], rows[order[begins + sizes - 1]]
        several = index.digest[lowest] != index.digest[highest]
        if not several.any():
            return None
        ordered = rows[order]
        low, high = np.repeat(lowest, sizes), np.repeat(highest, sizes)
        other = np.where(index.digest[ordered] == index.digest[low], high, low)
        concerned = np.repeat(several, sizes)
        self._found["conflicting_answers"][ordered[concerned]] = other[concerned]
        self._reject("conflicting_answers")
        pairs = np.sort(np.stack((lowest[several], highest[several]), axis=1), axis=1)
        pairs = pairs[np.argsort(pairs[:, 0])][:EXAMPLES]
        shown = [(int(first), int(second)) for first, second in pairs]
        return ConflictCounts(int(several.sum()), int(concerned.sum()), shown)

    def _find_unusual_lengths(self) -> None:
        """Measured anew until no row is rejected, so that the kept rows would pass once more."""
        import numpy as np

        while True:
            rows = np.flatnonzero(self._alive)
            if len(rows) < _LEAST_ROWS:
                return
            logarithm = np.log(np.maximum(self._index.length[rows], 1))
            median = np.median(logarithm)
            spread = max(float(np.median(np.abs(logarithm - median))), _LEAST_SPREAD)
            self._median = round(math.exp(float(median)))
            unusual = np.abs(logarithm - median) > _SPREADS * spread
            self._found["unusual_length"][rows] = np.where(unusual, rows, -1)
            if not self._reject("unusual_length"):
                return


def _near_counts(
    rows: Integers, cluster: Integers, sketch: NDArray[np.uint16]
) -> NearCounts | None:
    import numpy as np

    sizes = np.bincount(cluster, minlength=len(rows))
    firsts = np.flatnonzero(sizes > 1)
    if not len(firsts):
        return None
    largest = firsts[np.argsort(-sizes[firsts], kind="stable")][:EXAMPLES]
    # the second of a cluster: the first row that is in it and does not begin it
    seconds = np.array([np.flatnonzero(cluster == first)[1] for first in largest], np.int64)
    agreeing = agreement(sketch, largest, seconds) / VALUES
    pairs = zip(rows[largest].tolist(), rows[seconds].tolist(), agreeing.tolist(), strict=True)
    counted = int(sizes[firsts].sum())
    return NearCounts(len(firsts), counted, int(sizes[largest[0]]), list(pairs))
