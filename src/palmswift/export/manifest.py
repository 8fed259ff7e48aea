"""What an exported model says of itself: `palmswift-export.json` in its folder, written last."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palmswift import __version__
from palmswift.files import sha256_of, write_json
from palmswift.launchers.arguments import serving_arguments
from palmswift.launchers.checkpoint_files import EXPORT_MANIFEST, read_document, weight_files
from palmswift.launchers.record import package_versions
from palmswift.launchers.run_folder import RunFolder, utc_now
from palmswift.recipes.recipe import SwiftValue

MANIFEST = EXPORT_MANIFEST
"""A folder with it is whole: it is written when everything else is there and was checked."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Base(_Document):
    """The model that was tuned."""

    id: str
    source: str
    revision: str | None
    """The hub's revision that the recipe asked for; null: what the hub had, or no hub."""
    folder: str
    """Where this machine had it, or its hub id."""


class Check(_Document):
    """One thing that was looked at in the result."""

    name: str
    passed: bool
    detail: str = ""


class ParityResult(_Document):
    """What `parity.json` beside the model says, in short."""

    passed: bool
    prompts: int
    same_prompts: int
    same_answers: int
    """Answers that are the trained model's, close calls (`tie`) not among them."""
    divergence: float | None
    """Mean difference of log-probabilities, nats a token; null: the server tells none."""
    limit: float
    """The divergence up to which it passes."""
    causes: list[str]


class Manifest(_Document):
    """All that has to be known of an exported model when nothing but its folder is left."""

    schema_version: Literal[1] = 1
    kind: str
    """`merged`, `bnb-int4`, `awq-int4`, `gptq-int4`, `fp8`, `gguf-q4_k_m`, `ollama`..."""
    created: str
    palmswift: str = __version__
    run: str
    recipe: str
    base: Base
    checkpoint: str
    """The trained checkpoint, relative to the run."""
    weights: dict[str, str]
    """SHA-256 of the checkpoint's weight files."""
    data: dict[str, str]
    """SHA-256 of the rows that were trained on and held out."""
    versions: dict[str, str]
    template: str | None
    """ms-swift's template; null: the one of the model's type."""
    system: str | None
    thinking: bool | None
    """`enable_thinking` of the training; null: the template's own default."""
    stop_tokens: dict[str, int]
    """The tokens that end an answer, by their text."""
    serving: dict[str, SwiftValue] = Field(default_factory=dict)
    """The `swift deploy` arguments under which it answers as it was trained."""
    asked: str
    """The form that was asked for, such as `bfloat16`, `bnb 4 bit`, `q4_k_m`."""
    found: str
    """The form that was found in the files."""
    settings: dict[str, SwiftValue | None] = Field(default_factory=dict)
    """How it was made: group size, calibration rows, peak memory in MiB."""
    bytes: int
    checks: list[Check]
    parity: ParityResult | None = None
    """Null: it was not compared; `remarks` say why."""
    remarks: list[str] = Field(default_factory=list)


class Exported(_Document):
    """What a stage of the export leaves."""

    kind: str
    path: Path
    """The folder that is served, or the file (GGUF)."""
    asked: str
    found: str
    bytes: int
    settings: dict[str, SwiftValue | None] = Field(default_factory=dict)
    checks: list[Check] = Field(default_factory=list)
    parity: ParityResult | None = None
    remarks: list[str] = Field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no check and no comparison speaks against it."""
        return all(check.passed for check in self.checks) and (
            self.parity is None or self.parity.passed
        )


def manifest_of(run: RunFolder, made: Exported, stop_tokens: dict[str, int]) -> Manifest:
    """The manifest of what was made of a run."""
    recipe, train = run.training_recipe, run.facts("train")
    checkpoint = str(train["checkpoint"])
    thinking = recipe.swift.get("enable_thinking")
    return Manifest(
        kind=made.kind,
        created=utc_now(),
        run=run.path.name,
        recipe=recipe.name,
        base=Base(
            id=recipe.model.id,
            source=recipe.model.source,
            revision=recipe.model.revision,
            folder=str(run.facts("model")["model"]),
        ),
        checkpoint=checkpoint,
        weights={
            file.name: sha256_of(file)
            for file in weight_files(run.path / checkpoint)
            if file.is_file()
        },
        data=dict(run.facts("data").get("rows", {})),
        versions=package_versions(),
        template=_text(recipe.swift.get("template")),
        system=_text(recipe.swift.get("system")),
        thinking=thinking if isinstance(thinking, bool) else None,
        stop_tokens=stop_tokens,
        serving={
            name: value
            for name, value in serving_arguments(recipe).items()
            if name != "torch_dtype" and not name.startswith(("quant_", "bnb_", "hqq_"))
        },
        asked=made.asked,
        found=made.found,
        settings=made.settings,
        bytes=made.bytes,
        checks=made.checks,
        parity=made.parity,
        remarks=made.remarks,
    )


def _text(value: SwiftValue | None) -> str | None:
    return None if value is None else str(value)


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write it into the exported folder, which is whole from then on."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest | None:
    """What an exported folder says of itself; None when it is not whole."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def stop_tokens_of(folder: Path) -> dict[str, int]:
    """The tokens that end an answer of the model in `folder`, by their text.

    As generation_config.json has them, else config.json; none when neither says.
    """
    for name in ("generation_config.json", "config.json"):
        told: Any = (read_document(folder / name) or {}).get("eos_token_id")
        ids = told if isinstance(told, list) else [told]
        if found := [one for one in ids if isinstance(one, int)]:
            texts = _added_tokens(folder)
            return {texts.get(one, str(one)): one for one in found}
    return {}


def _added_tokens(folder: Path) -> dict[int, str]:
    added = (read_document(folder / "tokenizer.json") or {}).get("added_tokens")
    return {int(one["id"]): str(one["content"]) for one in added} if added else {}
