"""What a trained model answers to a few prompts, by the tokens it was trained on: asked once, kept.

The model is loaded in a child process (`palmswift.deploy.parity_worker`), and what it says is kept
in the run folder, so that a server can be checked later on a card that has no room for both.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from palmswift.data.policy import kind_of
from palmswift.data.row import Kind
from palmswift.data.template import TemplateSpec
from palmswift.deploy.parity_prompts import Prompt, prompts_of
from palmswift.deploy.spec import ServerSpec, spec_of_run
from palmswift.errors import ChildError
from palmswift.files import write_text
from palmswift.launchers.arguments import (
    SERVED_AS_TRAINED,
    child_environment,
    source_arguments,
)
from palmswift.launchers.diagnosis import diagnose
from palmswift.launchers.run_folder import RunFolder
from palmswift.process import ProcessGroup
from palmswift.recipes.recipe import SwiftValue

ROWS = 8
"""Prompts taken from a run's rows, unless something else is said."""

MAX_TOKENS = 48
"""Tokens of each answer, unless something else is said."""


_KEPT = "deploy/parity-truth.json"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class TruthSpec(_Document):
    """What the child is told."""

    template: TemplateSpec
    """The training's own command and arguments: they decide a prompt's tokens."""
    kind: Kind
    model: dict[str, SwiftValue]
    """Arguments of `swift infer` that load the trained weights as they were trained."""
    adapter: str | None
    base: str
    """The model that was tuned: a folder or a hub id."""
    prompts: list[Prompt]
    max_tokens: int


class Answer(_Document):
    """A greedy answer."""

    text: str
    """Without special tokens."""
    ids: list[int]
    """With the stop token, when it came."""
    finished: bool
    """Whether it ended by itself within `max_tokens`."""
    logprobs: list[float]
    """Natural logarithm of each token's probability."""
    gaps: list[float]
    """How much likelier each token was than the next likeliest (difference of the logarithms)."""


class Expected(_Document):
    """What a server of the trained model has to see and say for one prompt."""

    prompt: Prompt
    prompt_ids: list[int]
    """The tokens that stand before the answer in training."""
    answer: Answer
    base: Answer
    """What the untouched base says to the same tokens."""
    variants: dict[str, list[int]]
    """Tokens that the prompt becomes by the usual mistakes: the mistake's name to the tokens."""


class Truth(_Document):
    """All of it, with what it depends on."""

    schema_version: int = 1
    key: str
    max_tokens: int
    stop_ids: list[int]
    tokenizer: str
    """The folder of the tokenizer that the ids are of."""
    expected: list[Expected]


def truth_spec(run: RunFolder, prompts: list[Prompt], max_tokens: int) -> TruthSpec:
    """What the child is told about a finished run."""
    served: ServerSpec = spec_of_run(run, merged=False)
    base = str(run.facts("model")["model"])
    as_trained = {n: run.recipe.swift[n] for n in SERVED_AS_TRAINED if n in run.recipe.swift}
    source = source_arguments(run.recipe, served.model)
    return TruthSpec(
        template=TemplateSpec(
            command=run.recipe.swift_command,
            arguments={**source_arguments(run.recipe, base), **run.recipe.swift},
            env=child_environment(run.recipe, base),
        ),
        kind=kind_of(run.recipe.task),
        model={**source, **as_trained},
        adapter=None if served.adapter is None else str(served.adapter),
        base=base,
        prompts=prompts,
        max_tokens=max_tokens,
    )


def truth_of_run(run: RunFolder, *, most: int, max_tokens: int) -> Truth:
    """The truth about a run, from its folder when it is there already.

    `ChildError` when the model could not be asked.
    """
    spec = truth_spec(run, prompts_of(run, most), max_tokens)
    if (found := _kept(run, spec)) is not None:
        return found
    document = _ask(run, spec, truth_key(spec))
    write_text(run.path / _KEPT, document.model_dump_json())
    return document


def kept_truth(run: RunFolder, *, most: int, max_tokens: int) -> Truth | None:
    """The truth about a run that was asked before, of the same weights and prompts."""
    return _kept(run, truth_spec(run, prompts_of(run, most), max_tokens))


def _kept(run: RunFolder, spec: TruthSpec) -> Truth | None:
    try:
        found = Truth.model_validate_json((run.path / _KEPT).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.key == truth_key(spec) else None


def truth_key(spec: TruthSpec) -> str:
    """Changes with what was asked and with the weights that were asked."""
    weights = Path(spec.adapter or str(spec.model["model"]))
    stamp = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(weights.glob("*.safetensors"))
    ]
    return hashlib.sha256(f"{spec.model_dump_json()}{stamp}".encode()).hexdigest()


def _ask(run: RunFolder, spec: TruthSpec, key: str) -> Truth:
    folder, log = run.path / "deploy", run.logs / "parity.log"
    told, answered = folder / ".parity-spec.json", folder / ".parity-answer.json"
    answered.unlink(missing_ok=True)
    write_text(told, spec.model_dump_json())
    start = log.stat().st_size if log.is_file() else 0
    argv = [sys.executable, "-m", "palmswift.deploy.parity_worker", str(told), str(answered)]
    try:
        with ProcessGroup(argv, log=log, env=spec.template.env) as child:
            code = child.wait()
        if code or not answered.is_file():
            failure = diagnose(log, code, start=start)
            raise ChildError(
                f"the trained model could not be asked ({failure.kind}): {failure.cause}",
                remedy=f"{failure.remedy}\n     log: {log}",
            )
        known: dict[str, Any] = {"key": key, "max_tokens": spec.max_tokens}
        return Truth.model_validate({**_json(answered), **known})
    finally:
        told.unlink(missing_ok=True)
        answered.unlink(missing_ok=True)


def _json(file: Path) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    return found
