"""Keeps a frozen input embedding in host memory: an ms-swift plugin for LoRA and QLoRA.

What it does: the table of input embeddings is loaded to the CPU and stays there. A step looks up
its tokens' rows on the CPU and sends those to the card. The rows are the same bits as before, so
losses and gradients are too.

What it saves: 2 * vocabulary * hidden bytes of GPU memory, from the moment of loading: 1,187 MiB
for Qwen3-8B, 1,484 MiB for Qwen3-14B.

What it costs: 2 * hidden bytes a token over PCIe (8 MiB for 1,024 tokens of Qwen3-8B), one wait for
the card a micro step, and the table in host memory.

When it cannot act, the training stops before the model is loaded or at its first step: the head
shares the table (Qwen3-0.6B, 1.7B and 4B), the table is trained (full tuning, modules_to_save), the
training generates text, or it runs on several processes or devices.

Settings: none. Serving, merging and inference are as without it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import torch
from swift.arguments import SftArguments
from swift.utils import get_logger
from torch import nn
from transformers import PreTrainedModel

GENERATING = ("grpo", "gkd", "ppo")
"""Kinds of `swift rlhf` that write text with the model while they train it."""


class HostEmbedding(nn.Embedding):  # type: ignore[misc]  # torch is not followed by mypy
    """An embedding whose table stays on the CPU, while its rows go to `compute_device`."""

    compute_device: torch.device

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The rows of `ids`, on the device of the layers."""
        if self.weight.requires_grad:
            raise ValueError(
                "embedding_on_cpu: the embedding is trained, so it cannot stay on the CPU; "
                "take it out of modules_to_save and target_modules, or the plugin out of plugins"
            )
        return super().forward(ids.to("cpu")).to(self.compute_device, non_blocking=True)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> HostEmbedding:
        """Follow a change of dtype; a change of device moves only where rows go."""
        moved = fn(torch.empty(0, dtype=self.weight.dtype, device=self.compute_device))
        self.compute_device = moved.device
        self.weight.data = self.weight.data.to(moved.dtype)
        return self


def keep_on_cpu(model: Any) -> int:
    """Make `model`'s embedding stay in host memory; returns the bytes that it takes there."""
    embedding = model.get_input_embeddings()
    if type(embedding) is not nn.Embedding or hasattr(embedding, "_hf_hook"):
        raise ValueError(
            f"embedding_on_cpu: the embedding is a {type(embedding).__name__}, or the model is "
            "spread over devices; take the plugin out of plugins"
        )
    if _is_tied(model):
        raise ValueError(
            "embedding_on_cpu: this model's head is its embedding (tie_word_embeddings), so "
            "it has to stay on the GPU; take the plugin out of plugins"
        )
    table = embedding.weight
    others = (each.device for each in model.parameters() if each is not table)
    # The class is exchanged, and not the module: hooks that are on it already stay.
    embedding.__class__ = HostEmbedding
    embedding.compute_device = next(others)
    table.data = table.data.to("cpu")
    return int(table.nbytes)


def loading_to_cpu() -> AbstractContextManager[Any]:
    """While it is open, transformers brings the embedding to the CPU and never to the card."""
    load = PreTrainedModel._load_pretrained_model

    @functools.wraps(load)
    def load_apart(
        model: Any, states: Any, files: Any, config: Any, *rest: Any, **named: Any
    ) -> Any:
        table = model.get_input_embeddings()
        names = [name for name, module in model.named_modules() if module is table]
        if config.device_map is not None and names and not _is_tied(model):
            # Only for the loader: a device map with a CPU in it is refused for 4-bit models.
            devices = {**config.device_map, names[0]: "cpu"}
            config = dataclasses.replace(config, device_map=devices)
        return load(model, states, files, config, *rest, **named)

    return patch.object(PreTrainedModel, "_load_pretrained_model", staticmethod(load_apart))


def check(arguments: Any) -> None:
    """Refuse (`ValueError`) a training in which the embedding cannot stay on the CPU."""
    problem = ""
    if arguments.tuner_type == "full":
        problem = "tuner_type full trains the embedding"
    elif arguments.tuner_backend == "unsloth":
        problem = "tuner_backend unsloth loads the model in its own way"
    elif arguments.global_world_size > 1 or arguments.deepspeed or arguments.fsdp:
        problem = "it is for one process, without deepspeed and fsdp"
    elif getattr(arguments, "predict_with_generate", False):
        problem = "predict_with_generate generates with the model, which then has two devices"
    elif getattr(arguments, "rlhf_type", None) in GENERATING:
        problem = f"{arguments.rlhf_type} generates with the model, which then has two devices"
    if problem:
        raise ValueError(f"embedding_on_cpu: {problem}; take the plugin out of plugins")


def _is_tied(model: Any) -> bool:
    head = model.get_output_embeddings()
    shared = head is not None and head.weight is model.get_input_embeddings().weight
    return shared or bool(getattr(model.config, "tie_word_embeddings", False))


def _install() -> None:
    """Act on what `swift sft`, `pt` and `rlhf` load; no other command has these arguments."""
    load = SftArguments.get_model_processor

    @functools.wraps(load)
    def get_model_processor(self: Any, **named: Any) -> Any:
        check(self)
        with loading_to_cpu():
            model, processor = load(self, **named)
        if model is not None:  # only the tokenizer was asked for
            size = keep_on_cpu(model)
            get_logger().info(f"embedding_on_cpu: {size:,} bytes of embeddings in host memory")
        return model, processor

    SftArguments.get_model_processor = get_model_processor


_install()
