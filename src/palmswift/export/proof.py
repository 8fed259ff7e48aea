"""The proof of an export: it is served, asked what the trained model was asked, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from palmswift.export.manifest import ParityResult

if TYPE_CHECKING:
    from palmswift.command import Console
    from palmswift.deploy.parity_judge import ParityReport
    from palmswift.deploy.parity_truth import Truth
    from palmswift.deploy.spec import ServerSpec
    from palmswift.launchers.run_folder import RunFolder

ROWS, MAX_TOKENS = 8, 48
"""As `deploy/parity.py` asks by itself, so that one truth serves both."""

TIE = 0.1
SAME = 0.05
"""Nats a token: what rounding to 16 bits may move, with a margin."""

QUANTISED = 0.1
"""Nats a token that a quantisation may cost. It divides 4 bits from 2 on the demo's small Qwen3
(benchmarks/records/gguf-kinds-*.json); no larger model has been tried."""

REROUNDED = 0.25
"""The same for an adapter that was trained on 4-bit weights, put onto the whole ones."""

LOSSY_TIE = 1.0
"""A close call for lossy weights, in nats between the two likeliest tokens: where the mean is a
tenth of a nat, it is now and then ten times that at one token."""


class Standard(NamedTuple):
    """What an export is held to."""

    limit: float
    """Mean difference of log-probabilities, nats a token."""
    loss: str
    """What a larger one is called: `merge_loss`, `quantisation_loss`."""
    lossy: bool
    """Whether single answers may differ while the mean stays under the limit."""


def standard_of(run: RunFolder, *, quantised: bool, limit: float | None) -> Standard:
    """What this export is held to; `limit` is the user's own."""
    trained_on_rounded = "quant_method" in run.training_recipe.swift
    lossy = quantised or trained_on_rounded
    usual = REROUNDED if trained_on_rounded else QUANTISED if quantised else SAME
    loss = "quantisation_loss" if quantised else "merge_loss"
    return Standard(usual if limit is None else limit, loss, lossy)


def serving_spec(run: RunFolder, model: Path, *, quantised: bool) -> ServerSpec:
    """The exported folder, served as the run's own model is, on a free port."""
    from palmswift.deploy.spec import ServerSpec, spec_of_run
    from palmswift.launchers.checkpoint_files import read_document

    spec = spec_of_run(run)
    swift = {
        name: value
        for name, value in spec.swift.items()
        if not name.startswith(("quant_", "bnb_", "hqq_", "model_revision", "use_hf"))
    }
    if quantised:
        told = (read_document(model / "config.json") or {}).get("dtype", "bfloat16")
        swift["torch_dtype"] = str(told)
    changes = {"model": str(model), "adapter": None, "port": 0, "swift": swift}
    changes |= {"backend": "transformers"}
    return ServerSpec.model_validate({**spec.model_dump(), **changes})


def prove(
    run: RunFolder, model: Path, truth: Truth, standard: Standard, console: Console
) -> ParityReport:
    """Serve the model, ask, judge. `ChildError` when it does not come up."""
    from palmswift.deploy.parity import compare
    from palmswift.deploy.parity_judge import Limits
    from palmswift.deploy.server import Server

    spec = serving_spec(run, model, quantised=standard.loss == "quantisation_loss")
    console.note(f"compare  {len(truth.expected)} prompts with the trained model's answers")
    with Server(
        spec,
        folder=run.logs / "deploy",
        run=run.path,
        note=lambda line: console.note(f"         {line}"),
    ) as server:
        limits = Limits(tie=LOSSY_TIE if standard.lossy else TIE, divergence=standard.limit)
        found = compare(truth, run.path.name, server.base_url, spec.name, None, limits)
    return judged(found, truth, standard)


def judged(found: ParityReport, truth: Truth, standard: Standard) -> ParityReport:
    """The report by the standard: a loss under the limit is a figure, one above it has a name."""
    from palmswift.deploy.parity_judge import LOSSY_LIMIT
    from palmswift.deploy.parity_loss import LOSS, accept_loss

    if standard.lossy:
        return _renamed(accept_loss(found, truth, standard.limit), LOSS, standard.loss)
    if found.divergence is not None and found.divergence < LOSSY_LIMIT:
        return _renamed(found, "lossy_weights", standard.loss)
    return found


def _renamed(found: ParityReport, old: str, new: str) -> ParityReport:
    prompts = [
        one.model_copy(update={"cause": new}) if one.cause == old else one for one in found.prompts
    ]
    causes = {new if cause == old else cause: names for cause, names in found.causes.items()}
    return found.model_copy(update={"causes": causes, "prompts": prompts})


def result_of(found: ParityReport, limit: float) -> ParityResult:
    """The report in short, for the manifest."""
    return ParityResult(
        passed=found.passed,
        prompts=len(found.prompts),
        same_prompts=sum(one.prompt in ("same", "same_length") for one in found.prompts),
        same_answers=sum(one.answer == "same" for one in found.prompts),
        divergence=found.divergence,
        limit=limit,
        causes=[*found.causes],
    )


def sentence(result: ParityResult, *, quantised: bool) -> str:
    """The figure in a line: `quantisation loss 0.013 nats a token; 7 of 8 answers the same`."""
    what = "quantisation loss" if quantised else "apart by"
    far = "" if result.divergence is None else f"{what} {result.divergence:.2g} nats a token; "
    return f"{far}{result.same_answers} of {result.prompts} answers the same"
