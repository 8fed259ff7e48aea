"""The process that runs BERTScore's model (palmswift.eval.measures.bertscore).

Zhang et al. 2020, as bert_score 0.3.13 computes it without idf weights: each token of the one text
is matched with the token of the other that is most like it (cosine of the contextual embeddings of
one layer); precision is the mean over the answer's tokens, recall over the reference's. [CLS] and
[SEP] may be matched with, but have no weight of their own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from palmswift.eval.json_child import answer_questions

_BATCH = 32


class Embedder:
    """A model up to one of its layers."""

    def __init__(self, path: str, layer: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModel.from_pretrained(path, dtype=torch.float32)
        depth = model.config.num_hidden_layers
        if not 0 <= layer <= depth:
            raise ValueError(f"layer {layer} of a model with {depth}")
        self.layer = layer
        self.model = model.eval().to(self.device)
        most = getattr(self.tokenizer, "model_max_length", None) or 512
        self.longest = min(int(most), int(getattr(model.config, "max_position_embeddings", 512)))

    def embed(self, texts: list[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """For each text: unit vectors of its tokens, and which of them have weight."""
        found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        # Texts of like length together waste little on padding.
        ordered = sorted(dict.fromkeys(texts), key=len)
        special = {self.tokenizer.cls_token_id, self.tokenizer.sep_token_id}
        for start in range(0, len(ordered), _BATCH):
            batch = ordered[start : start + _BATCH]
            tokens = self.tokenizer(
                [text.strip() for text in batch],
                truncation=True,
                max_length=self.longest,
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                layers = self.model(**tokens, output_hidden_states=True).hidden_states
            vectors = torch.nn.functional.normalize(layers[self.layer].float(), dim=-1).cpu()
            for row, text in enumerate(batch):
                real = tokens["attention_mask"][row].bool().cpu()
                ids = tokens["input_ids"][row].cpu()[real]
                weight = torch.tensor([int(token) not in special for token in ids])
                found[text] = (vectors[row][real], weight)
        return found


@lru_cache(maxsize=1)
def _embedder(path: str, layer: int) -> Embedder:
    return Embedder(path, layer)


def _score(
    answer: tuple[torch.Tensor, torch.Tensor], reference: tuple[torch.Tensor, torch.Tensor]
) -> tuple[float, float, float]:
    (own, own_weight), (other, other_weight) = answer, reference
    if not own_weight.any() or not other_weight.any():  # an empty text
        same = not own_weight.any() and not other_weight.any()
        return (1.0, 1.0, 1.0) if same else (0.0, 0.0, 0.0)
    alike = own @ other.T
    precision = float(alike.max(dim=1).values[own_weight].mean())
    recall = float(alike.max(dim=0).values[other_weight].mean())
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """{"scores": [[precision, recall, f1], ...]}, or {"error": why}."""
    try:
        embedder = _embedder(question["model"], question["layer"])
    except (OSError, ValueError, KeyError) as error:  # no usable model in the folder
        return {"error": str(error).splitlines()[0]}
    pairs = question["pairs"]
    found = embedder.embed([text for own, of in pairs for text in (own, *of)])
    best = [
        max((_score(found[own], found[text]) for text in of), key=lambda triple: triple[2])
        for own, of in pairs
    ]
    return {"scores": best}


if __name__ == "__main__":
    raise SystemExit(answer_questions(answer))
