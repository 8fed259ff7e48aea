"""Parity of weights that were rounded on purpose: what the rounding explains is a figure, no fault.

A quantised model gives other probabilities, and at a close call another answer. That is judged by
one number over all prompts, the mean difference of the log-probabilities of the tokens that both
chose. Everything else (template, stop token, adapter) is judged as for whole weights, and so is an
answer that parts from the trained one where rounding cannot have decided.
"""

from __future__ import annotations

from palmswift.deploy.parity_judge import LOSSY_LIMIT, Compared, ParityReport
from palmswift.deploy.parity_truth import Truth

LOSS = "quantisation_loss"
_BY_ROUNDING = ("lossy_weights", "other_weights")
_BY_STOPPING = ("stop_missing", "answer_cut")


def accept_loss(found: ParityReport, truth: Truth, limit: float) -> ParityReport:
    """The report, with a rounding that stays under `limit` nats a token accepted.

    One that does not is named `quantisation_loss`; what rounding cannot do stays as it was named.
    """
    far = found.divergence
    if far is None:
        return _without_figure(found)
    if far >= LOSSY_LIMIT:
        return found
    known = _BY_ROUNDING + (_BY_STOPPING if _stops_rightly(found, truth) else ())
    prompts = [_renamed(one, far, limit) if one.cause in known else one for one in found.prompts]
    if far > limit and not any(one.cause for one in prompts):
        prompts[0] = _renamed(prompts[0], far, limit)
    causes: dict[str, list[str]] = {}
    for one in prompts:
        if one.cause is not None:
            # One prompt's certain cause may stand for what others only hint at.
            named = next((c for c, names in found.causes.items() if one.name in names), one.cause)
            causes.setdefault(LOSS if one.cause == LOSS else named, []).append(one.name)
    return found.model_copy(update={"causes": causes, "prompts": prompts})


def _without_figure(found: ParityReport) -> ParityReport:
    """No token in common, or no log-probabilities: only the same answers can be accepted."""
    parted = [one.name for one in found.prompts if one.answer == "tie"]
    if not parted:
        return found
    detail = "another first token, so that the loss cannot be told"
    prompts = [
        one.model_copy(update={"cause": LOSS, "detail": detail}) if one.name in parted else one
        for one in found.prompts
    ]
    return found.model_copy(update={"causes": {**found.causes, LOSS: parted}, "prompts": prompts})


def _renamed(one: Compared, far: float, limit: float) -> Compared:
    """A prompt whose difference is of the kind that rounding makes."""
    if far <= limit and one.answer != "differs":
        return one.model_copy(update={"cause": None, "detail": ""})
    detail = f"log-probabilities {far:.3g} nats a token apart over all prompts, {limit:g} allowed"
    if far <= limit:
        detail = f"no close call, but another answer: {one.detail}"
    return one.model_copy(update={"cause": LOSS, "detail": detail})


def _stops_rightly(found: ParityReport, truth: Truth) -> bool:
    """Whether the server ends some answer where the training did: its stop token is in order."""
    finished = {one.prompt.name for one in truth.expected if one.answer.finished}
    return any(one.answer == "same" and one.name in finished for one in found.prompts)
