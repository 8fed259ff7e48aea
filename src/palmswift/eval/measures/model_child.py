"""A process that runs a model from a folder for a measure, and what is said when it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palmswift.errors import ChildError, InputError
from palmswift.eval.json_child import ChildGone, JsonChild

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

_TIMEOUT = 3600.0
"""Seconds for one question; a large model on a CPU takes minutes."""


class ModelChild(JsonChild):
    """A worker module that loads a model itself and answers `{"error"}` for one it cannot use."""

    def __init__(self, module: str, what: str, model: Path) -> None:
        """`what` names the measure in errors."""
        super().__init__(module, env=_OFFLINE)
        self._model = model
        self._title = f"{what} with {model}"

    def measure(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's reply about the model. InputError: what it refuses; ChildError: it could
        not be run."""
        try:
            reply = self.ask({"model": str(self._model), **question}, _TIMEOUT)
        except ChildGone as error:
            raise ChildError(
                f"{self._title}: {error}",
                remedy="it needs torch and transformers: python3 quickstart.py install",
            ) from error
        if "error" in reply:
            raise InputError(f"{self._title}: {reply['error']}")
        return reply
