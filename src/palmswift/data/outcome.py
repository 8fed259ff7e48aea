"""What becomes of each row once all that is known about it: kept on which side, or rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from palmswift.data.index import RowIndex
from palmswift.data.policy import Policy
from palmswift.data.relations import CODES, Relations
from palmswift.data.report import Use
from palmswift.data.row import Kind
from palmswift.data.split import hold_out
from palmswift.data.template import Judgement
from palmswift.errors import GateError
from palmswift.recipes.recipe import DataSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TEMPLATE, _TIMESTAMPS = len(CODES) + 1, len(CODES) + 2
"""Why a row is lost, beside the codes of palmswift.data.relations (numbered from 1)."""


class Outcome:
    """Decided for all rows at once, then asked row by row."""

    def __init__(
        self,
        index: RowIndex,
        judgement: Judgement | None,
        digests: Mapping[bytes, int],
        read: Mapping[Use, int],
        policy: Policy,
        kind: Kind,
        settings: DataSettings,
    ) -> None:
        """`digests` leads from the digest of a row to its number; `read` counts all source rows."""
        import numpy as np

        self.index = index
        self.judgement = judgement
        self.failure: GateError | None = None
        """Why the rows that are left are not enough."""
        self._digests = digests
        self._lost = np.zeros(len(index), np.uint8)
        self._alive = np.ones(len(index), bool)
        if judgement is not None:
            verdicts = judgement.verdicts
            refused = [row for row in range(len(index)) if verdicts.reason(row)]
            self._lose(_TEMPLATE, np.array(refused, np.int64))
        self.relations = Relations(index, self._alive, policy, kind)
        self._found = np.zeros(len(index), np.uint8)
        for number, code in enumerate(CODES):
            found = self.relations.found(code)
            self._found |= (found & self._alive).astype(np.uint8) << np.uint8(number)
            self._lost[found & ~self._alive & (self._lost == 0)] = number + 1
        given = read["val"] > 0
        self._val = self._divide(settings, given=given)
        while self._reject_timestamps() and not given:  # rows may have gone that were held out
            self._val = self._divide(settings, given=given)
        self.failure = self._shortage(read) or self.failure

    def _lose(self, why: int, rows: NDArray[np.int64]) -> None:
        self._alive[rows] = False
        self._lost[rows] = why

    def _divide(self, settings: DataSettings, *, given: bool) -> NDArray[np.bool_]:
        """Which rows are validated with: those of the validation files, or some held out."""
        import numpy as np

        if given:
            return self.index.in_val
        self.failure = None
        val = np.zeros(len(self.index), bool)
        rows = np.flatnonzero(self._alive)
        try:
            val[rows] = hold_out(
                self.relations.groups(),
                self.index.file[rows],
                self.index.digest[rows],
                settings.val_ratio,
                settings.seed,
            )
        except GateError as error:
            self.failure = error
        return val

    def _reject_timestamps(self) -> bool:
        """Whether rows were rejected because a column of their side holds nothing but dates.

        ms-swift's loader would hand such a column on as numbers.
        """
        import numpy as np

        before = int(self._alive.sum())
        for side in (self._val, ~self._val):
            rows = np.flatnonzero(side & self._alive)
            dated = self.index.dated[rows]
            only_dates = np.bitwise_or.reduce(dated) & ~np.bitwise_or.reduce(
                self.index.undated[rows]
            )
            self._lose(_TIMESTAMPS, rows[(dated & only_dates) != 0])
        return int(self._alive.sum()) < before

    def _shortage(self, read: Mapping[Use, int]) -> GateError | None:
        sides: tuple[tuple[Use, str, NDArray[np.bool_]], ...] = (
            ("train", "training", ~self._val),
            ("val", "validation", self._val),
        )
        for use, name, side in sides:
            if read[use] and not (side & self._alive).any():
                return GateError(f"none of the {read[use]} {name} rows can be used")
        return None

    def use(self, row: int) -> Use:
        """The side of a row that is kept."""
        return "val" if self._val[row] else "train"

    def rejection(self, row: int) -> tuple[str, str] | None:
        """Code and detail of a row that is lost; None for one that is kept."""
        why = int(self._lost[row])
        if not why:
            return None
        if why == _TIMESTAMPS:
            return "only_timestamps", "so are all the other rows beside it"
        if why == _TEMPLATE:
            return None if self.judgement is None else self.judgement.verdicts.reason(row)
        return CODES[why - 1], self.relations.detail(CODES[why - 1], row)

    def findings(self, row: int) -> list[str]:
        """What a row that is kept was found to be beside the others."""
        found = int(self._found[row])
        return [code for number, code in enumerate(CODES) if found >> number & 1] if found else []

    def stands_elsewhere(self, digest: bytes) -> bool:
        """Whether a row with this digest is kept."""
        row = self._digests.get(digest)
        return row is not None and bool(self._alive[row])
