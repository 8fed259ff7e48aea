"""A reward of your own for GRPO: is the number in the answer the one in the row's `solution`?

A recipe loads this file with `plugins: [recipes/rewards/right_number.py]` and names the reward in
`swift.reward_funcs`. ms-swift calls it once for each batch of completions: `completions` are the
texts that the model wrote, and every further column of the rows is an argument of its name, one
value for each completion. What comes back is one number for each; None leaves a row out.
"""

from __future__ import annotations

import re
from typing import Any

from swift.rewards import ORM, orms


class RightNumber(ORM):  # type: ignore[misc]  # ms-swift has no types
    """1 where the last number of a completion is the solution, else 0."""

    def __call__(self, completions: list[str], solution: list[str], **columns: Any) -> list[float]:
        """One reward for each completion."""
        return [
            1.0 if re.findall(r"\d+", text)[-1:] == [right] else 0.0
            for text, right in zip(completions, solution, strict=True)
        ]


orms["right_number"] = RightNumber
