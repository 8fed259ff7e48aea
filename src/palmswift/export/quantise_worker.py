"""Quantises a model with llm-compressor: `python quantise_worker.py SPEC.json`.

It is run by its path, by a Python that has llm-compressor and need not have palmswift: vLLM and
llm-compressor of the same month want different releases of compressed-tensors.

SPEC.json: `model` and `out` (folders), `method` (awq, gptq, fp8), `bits`, `group_size`, `tokens`
(a JSONL file of `ids`, the training's own rows as tokens) and `rows` (how many of them).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM, AutoTokenizer

_LONGEST = 2048
"""Tokens of a row that calibration looks at."""

_NOT_QUANTISED = ["lm_head"]
"""The output layer decides every token, and shares its weight with the input in small models."""


def calibration(path: str, count: int) -> Dataset:
    """Some of the rows that were trained on, the same ones each time."""
    with Path(path).open(encoding="utf-8") as lines:
        rows = [json.loads(line)["ids"][:_LONGEST] for line in lines]
    chosen = random.Random(0).sample(rows, min(count, len(rows)))
    return Dataset.from_list(
        [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in chosen]
    )


def scheme(bits: int, group_size: int, *, symmetric: bool) -> dict[str, Any]:
    """Integer weights in groups, activations as they are: what vLLM calls W4A16 and W8A16."""
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": symmetric,
        "strategy": "group",
        "group_size": group_size,
    }
    return {"group_0": {"targets": ["Linear"], "weights": weights}}


def modifiers(spec: dict[str, Any]) -> list[Any]:
    """llm-compressor's recipe for a method."""
    ignore = _NOT_QUANTISED
    if spec["method"] == "fp8":
        return [QuantizationModifier(targets="Linear", scheme="FP8_DYNAMIC", ignore=ignore)]
    groups = scheme(spec["bits"], spec["group_size"], symmetric=spec["method"] == "gptq")
    if spec["method"] == "gptq":
        return [GPTQModifier(config_groups=groups, ignore=ignore)]
    return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=ignore)]


def main(argv: Sequence[str]) -> int:
    """Quantise what the file `argv[0]` says."""
    spec = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    if not torch.accelerator.is_available():
        # llm-compressor 0.14 pins the memory that AWQ keeps, which only a card's driver can do.
        IntermediatesCache.pin_memory = lambda self, *args, **kwargs: None
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype="bfloat16")
    settings: dict[str, Any] = {}
    if spec["method"] != "fp8":
        rows = calibration(spec["tokens"], spec["rows"])
        settings = {
            "dataset": rows,
            "max_seq_length": _LONGEST,
            "num_calibration_samples": len(rows),
        }
    oneshot(model=model, recipe=modifiers(spec), **settings)
    model.save_pretrained(spec["out"], save_compressed=True)
    AutoTokenizer.from_pretrained(spec["model"]).save_pretrained(spec["out"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
