"""What a LoRA adapter's own config says of serving it: its base, its rank, what an engine lacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from palmswift.errors import Problem
from palmswift.launchers.tensor_file import TornFile, read_header

_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest LoRA rank (vllm/config/lora.py, MaxLoRARanks)."""

_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""init_lora_weights that leave the base's weights alone (vllm/lora/peft_helper.py)."""


def adapter_config(adapter: Path) -> Mapping[str, object]:
    """PEFT's adapter_config.json; empty when it cannot be read."""
    try:
        document = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def base_of_adapter(adapter: Path) -> str:
    """The model that it was trained on, as PEFT wrote it down; empty when it did not."""
    return str(adapter_config(adapter).get("base_model_name_or_path") or "")


def adapter_rank(adapter: Path) -> int:
    """The largest rank in an adapter, by its config."""
    config = adapter_config(adapter)
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    return max((rank for rank in ranks if isinstance(rank, int)), default=16)


def vllm_lora_rank(adapter: Path) -> int:
    """The least rank that vLLM can be told to make room for, for this adapter."""
    needed = adapter_rank(adapter)
    return next((rank for rank in _VLLM_RANKS if rank >= needed), needed)


def adapted_modules(adapter: Path) -> list[str]:
    """The kinds of modules that an adapter changes (`q_proj`), by the names of its weights; none
    when they cannot be read."""
    try:
        names = read_header(adapter / "adapter_model.safetensors")
    except (OSError, TornFile):
        return []
    modules = (name.partition(".lora_")[0] for name in names if ".lora_" in name)
    return sorted({module.rpartition(".")[2] for module in modules})


def vllm_adapter_problems(adapter: Path) -> list[Problem]:
    """What vLLM 0.32 cannot do of this adapter (`PEFTHelper`), which it would say after loading."""
    config = adapter_config(adapter)
    start = config.get("init_lora_weights")
    lacking = {
        "DoRA (use_dora)": config.get("use_dora"),
        "whole trained modules (modules_to_save)": config.get("modules_to_save"),
        "a trained bias (bias, lora_bias)": config.get("lora_bias")
        or config.get("bias") not in (None, "none"),
        f"weights that begin with {start} (init_lora_weights)": isinstance(start, str)
        and start.lower() not in _PLAIN_STARTS,
        "other tuners than LoRA (peft_type)": config.get("peft_type", "LORA") != "LORA",
        # Its LoRA of the output layer has one row a request, where a request for prompt_logprobs
        # has one a token: the engine dies of it (vllm/lora/layers/logits_processor.py).
        "safe way with the output layer (lm_head)": "lm_head" in adapted_modules(adapter),
    }
    remedy = "merge it (python launchers/export.py) and serve the merged model, or --backend "
    return [
        Problem(f"vLLM has no {what} in adapters", str(adapter), f"{remedy}transformers")
        for what, has in lacking.items()
        if has
    ]
