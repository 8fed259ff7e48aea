"""The phases of a training beside its steps: loading, evaluating, saving."""

from __future__ import annotations

import dataclasses

from palmswift.plan.memory import (
    Peak,
    TrainingRun,
    forward_terms,
    loss_terms,
    predict,
    weight_bytes,
)


def lifetime(run: TrainingRun) -> Peak:
    """The memory of a whole training: `predict`'s phases, and those before and between steps.

    Phases are totals above what stands while steps run, so that of `load` may be below zero:
    there is no adapter yet, nor its optimizer.
    """
    step = predict(run)
    phases = {"load": _load(run, step.standing), **step.phases}
    if run.evaluation is not None:
        phases["evaluation"] = _evaluation(run)
    phases["save"] = {}  # tensors are copied to the host one after the other
    return Peak(step.standing, phases)


def _load(run: TrainingRun, standing: dict[str, int]) -> dict[str, int]:
    """Weights as they come, before a plugin quantises the head; the embedding may stay away.

    A matrix comes to the GPU in 16 bits and is quantised there, one after the other: transformers
    5.19 loads without threads when it quantises (core_model_loading.py).
    """
    arriving = dataclasses.replace(run, quantised_head=None)
    weights = sum(weight_bytes(arriving).values())
    copy = 2 * run.shape.hidden * run.shape.intermediate if run.quantized else 0
    return {"not_yet_there": weights - sum(standing.values()), "sixteen_bit_matrix": copy}


def _evaluation(run: TrainingRun) -> dict[str, int]:
    """Rows without gradients: the loss or one layer, whichever is more, and the logits kept."""
    evaluation = run.evaluation
    if evaluation is None:
        return {}
    batch = evaluation.batch
    plain = dataclasses.replace(run, batch=batch, dropout=0.0)
    if evaluation.keeps_logits:
        plain = dataclasses.replace(plain, liger=False, quantised_head=None, preference=False)
    tokens, kept = plain.tokens, plain.kept
    layer = forward_terms(plain, tokens)
    loss = {"autocast_cache": layer["autocast_cache"], **loss_terms(plain, tokens, kept).forward}
    most = max(layer, loss, key=lambda terms: sum(terms.values()))
    if not evaluation.keeps_logits:
        return most
    # fp32 logits of the steps that wait, and once more while they are joined
    waiting = 2 * 4 * kept * run.shape.vocab * evaluation.accumulated
    return {**most, "kept_logits": waiting}
