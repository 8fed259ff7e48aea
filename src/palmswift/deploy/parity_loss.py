"""Parity of weights that were rounded on purpose: what the rounding explains is a figure, no fault.

A quantised model gives other probabilities, and from a close call on another answer. That is judged
by one number over all prompts, the mean difference of log-probabilities of the tokens that both
chose; everything else (template, stop token, adapter) is judged as for whole weights.
"""

from __future__ import annotations

from palmswift.deploy.parity_judge import LOSSY_LIMIT, ParityReport
from palmswift.deploy.parity_truth import Truth

_BY_ROUNDING = ("lossy_weights", "other_weights")
"""Causes of an answer that parts from the trained one, with the prompt and its end in order."""

LOSS = "quantisation_loss"


def accept_loss(found: ParityReport, truth: Truth, limit: float) -> ParityReport:
    """The report, with a rounding that stays under `limit` nats a token accepted.

    One that does not is named `quantisation_loss`; beyond what rounding can do, and without any
    token in common, it stays other weights.
    """
    far = found.divergence
    causes = dict(found.causes)
    rounded = [cause for cause in _BY_ROUNDING if cause in causes]
    if _stops_elsewhere(found, truth):
        rounded += [cause for cause in ("stop_missing", "answer_cut") if cause in causes]
    if far is None or far >= LOSSY_LIMIT:
        return found
    names = [name for cause in rounded for name in causes.pop(cause)]
    if far > limit:
        causes[LOSS] = names or [one.name for one in found.prompts if one.divergence is not None]
    prompts = [
        one.model_copy(update={"cause": LOSS if far > limit else None})
        if one.cause in rounded or (far > limit and one.name in causes.get(LOSS, ()))
        else one
        for one in found.prompts
    ]
    return found.model_copy(update={"causes": causes, "prompts": prompts})


def _stops_elsewhere(found: ParityReport, truth: Truth) -> bool:
    """Whether the server ends some answer where the training did: its stop token is in order."""
    finished = {one.prompt.name for one in truth.expected if one.answer.finished}
    return any(one.answer == "same" and one.name in finished for one in found.prompts)
