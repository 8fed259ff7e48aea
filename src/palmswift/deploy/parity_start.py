"""Parity by itself: a run is compared with its trained model before its server counts as ready.

The trained model is asked once for a run, before a server takes the memory, and what it said is
kept (`deploy/parity-truth.json`); every later start only asks the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from palmswift.deploy.parity import compare, limits_of, lines
from palmswift.deploy.parity_judge import ParityReport
from palmswift.deploy.parity_truth import MAX_TOKENS, ROWS, Truth, kept_truth, truth_of_run
from palmswift.deploy.server import Server
from palmswift.errors import PalmswiftError
from palmswift.files import write_json
from palmswift.launchers.run_folder import RunFolder

_NOT_COMPARED = {
    "pt": "its rows are texts, not questions and answers",
}
"""Tasks whose training says nothing of what is asked, and why."""


class Checked(NamedTuple):
    """What came of the comparison."""

    passed: bool
    """Nothing speaks against it; also where nothing could be compared."""
    sentence: str
    """For the server's state and the last lines."""
    report: ParityReport | None
    told: list[str]
    """The whole report in words, of one that failed."""


def truth_before(run: RunFolder, note: Callable[[str], object]) -> Truth | Checked:
    """What the trained model says, asked now if the run does not have it yet.

    `Checked` with the reason where it cannot be had; the server can be started all the same.
    """
    if reason := _NOT_COMPARED.get(run.recipe.task):
        return _not_compared(reason)
    try:
        if (kept := kept_truth(run, most=ROWS, max_tokens=MAX_TOKENS)) is not None:
            return kept
        note("asking the trained model, to compare the server with it (once for this run)")
        return truth_of_run(run, most=ROWS, max_tokens=MAX_TOKENS)
    except PalmswiftError as error:
        return _not_compared(error.summary)


def check_server(server: Server, run: RunFolder, truth: Truth) -> Checked:
    """Compare a ready server with the truth; `deploy/parity.json` of the run has it all.

    `ChildError` when the server goes away meanwhile.
    """
    key = None if server.spec.api_key is None else server.spec.api_key.get_secret_value()
    report = compare(
        truth, run.path.name, server.base_url, server.spec.name, key, limits_of(run.recipe)
    )
    write_json(run.path / "deploy" / "parity.json", report.model_dump(mode="json"))
    if not report.passed:
        return Checked(False, "NOT the trained model", report, lines(report, truth))
    apart = f", {report.divergence:.1g} nats a token apart" if report.divergence is not None else ""
    sentence = f"the trained model ({len(report.prompts)} prompts compared{apart})"
    return Checked(True, sentence, report, [])


def _not_compared(reason: str) -> Checked:
    return Checked(True, f"not compared: {reason}", None, [])
