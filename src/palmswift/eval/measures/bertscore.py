"""BERTScore with a model that lies on this machine; the model runs in a process of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from palmswift.errors import InputError
from palmswift.eval.measures.model_child import ModelChild

LAYERS = {
    "bert-base-chinese": 8,
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "roberta-base": 10,
    "roberta-large": 17,
    "distilbert-base-uncased": 5,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
}
"""The layer that goes best with people's judgements, by model (bert_score 0.3.13, model2layers)."""

_CHUNK = 256


class BertScore(NamedTuple):
    """Of one answer, 0 to 1 (without rescaling most texts of one language lie above 0.6)."""

    precision: float
    recall: float
    f1: float


class BertScores(NamedTuple):
    """Of many answers, and what they were computed with."""

    scores: list[BertScore]
    signature: str
    """Model, layer and the beginning of the weights' SHA-256; scores compare under the same."""


class BertScorer:
    """Scores with one model, which stays loaded in a process of its own inside the block."""

    def __init__(self, model: Path, layer: int | None = None) -> None:
        """`layer` must be given for a model whose folder name is not in LAYERS. InputError: no such
        model or layer."""
        if not (model / "config.json").is_file():
            raise InputError(
                f"{model}: no model there",
                remedy="a folder with config.json and weights, such as a downloaded "
                "bert-base-chinese",
            )
        used = layer if layer is not None else LAYERS.get(model.name)
        if used is None:
            raise InputError(
                f"{model}: which layer to take is not known for it",
                remedy=f"--bertscore-layer N (`layer`); known: {', '.join(LAYERS)}",
            )
        self.model = model
        self.layer = used
        self._child = ModelChild("palmswift.eval.measures.bertscore_worker", "BERTScore", model)

    def __enter__(self) -> BertScorer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process."""
        self._child.stop()

    def scores(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[BertScore]:
        """Of (answer, references) pairs; of several references, the best F1 counts. InputError: no
        such layer. ChildError: the model could not be run."""
        scores: list[BertScore] = []
        for start in range(0, len(pairs), _CHUNK):
            chunk = [[answer, list(of)] for answer, of in pairs[start : start + _CHUNK]]
            reply = self._child.measure({"layer": self.layer, "pairs": chunk})
            scores += [BertScore(*triple) for triple in reply["scores"]]
        return scores


def bertscore(
    pairs: Sequence[tuple[str, Sequence[str]]], model: Path, layer: int | None = None
) -> BertScores:
    """The scores of (answer, references) pairs, and what they are of; errors as BertScorer's."""
    with BertScorer(model, layer) as scorer:
        scores = scorer.scores(pairs)
    signature = f"{model.name}|layer:{scorer.layer}|weights:{_digest(model)}|rescale:no"
    return BertScores(scores, signature)


def _digest(model: Path) -> str:
    """12 hex digits that stand for the model's configuration and weights."""
    digest = hashlib.sha256()
    for pattern in ("config.json", "*.safetensors", "pytorch_model*.bin"):
        for path in sorted(model.glob(pattern)):
            with path.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()[:12]
