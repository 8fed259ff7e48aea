"""A plain vLLM server: its arguments, made of what a run's `swift deploy` would be given.

It is for what `swift deploy --infer_backend vllm` has not: several adapters on one base by name,
the base beside them, Prometheus' `/metrics`. The template is the chat template that lies beside
the trained weights; `deploy/parity.py` shows whether it makes the training's tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from palmswift.deploy.spec import ServerSpec, vllm_lora_rank
from palmswift.errors import InputError, Problem
from palmswift.recipes.recipe import SwiftValue

PROGRAM = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
"""`vllm serve` looks for a distribution called vllm, which the CPU build is not."""

KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM looks for the key that it asks of its clients."""

_RENAMED = {"torch_dtype": "dtype", "max_model_len": "max-model-len", "use_hf": None}
"""ms-swift's name to vLLM's; None: it says nothing to vLLM."""

_SAID_ELSEWHERE = {
    *("model_type", "template", "add_non_thinking_prefix", "preserve_thinking", "attn_impl"),
    *("max_batch_size", "infer_backend", "external_plugins", "use_cpu", "model_revision"),
    *("bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "quant_bits"),
}
"""Arguments that the chat template, the weights or vLLM's own scheduler stand for."""


_BASE = "base"
"""What the untouched model is called beside its adapters, unless something else is said."""


def served_names(spec: ServerSpec) -> list[str]:
    """What clients may send as `model`."""
    adapters = list(adapters_of(spec))
    if spec.server == "swift" or not adapters:
        return [spec.name]
    return [*adapters, spec.base_name or _BASE]


def vllm_arguments(spec: ServerSpec, port: int) -> dict[str, SwiftValue]:
    """Every argument, what decides an answer written out; an empty list is a flag without value.

    `InputError` for what vLLM cannot do as the training did.
    """
    adapters = adapters_of(spec)
    base = spec.base_name or (_BASE if adapters else spec.name)
    arguments: dict[str, SwiftValue] = {
        "model": spec.model,
        "served-model-name": [base],
        "host": spec.host,
        "port": port,
        # Penalties and temperatures of a model's generation_config.json would change answers.
        "generation-config": "vllm",
        "no-enable-log-requests": [],
    }
    if adapters:
        arguments["enable-lora"] = []
        arguments["lora-modules"] = [f"{name}={path}" for name, path in adapters.items()]
        arguments["max-loras"] = len(adapters)
        arguments["max-lora-rank"] = max(map(vllm_lora_rank, adapters.values()))
    return {**arguments, **_settings(spec.swift)}


def adapters_of(spec: ServerSpec) -> dict[str, Path]:
    """Every adapter of the server by the name that clients send."""
    own = {} if spec.adapter is None else {spec.name: spec.adapter}
    return {**own, **spec.more_adapters}


def _settings(swift: Mapping[str, SwiftValue]) -> dict[str, SwiftValue]:
    """ms-swift's serving arguments in vLLM's words."""
    made: dict[str, SwiftValue] = {}
    problems: list[Problem] = []
    for name, value in swift.items():
        if name in _SAID_ELSEWHERE:
            continue
        if name == "enable_thinking":
            made["default-chat-template-kwargs"] = {"enable_thinking": value}
        elif name == "quant_method" and value == "bnb":
            made["quantization"] = "bitsandbytes"
        elif name in _RENAMED:
            if (theirs := _RENAMED[name]) is not None:
                made[theirs] = value
        elif name.startswith("vllm_"):
            made |= _flag(name.removeprefix("vllm_").replace("_", "-"), value)
        else:
            problems.append(Problem("plain vLLM has nothing that does this", f"swift.{name}"))
    if problems:
        raise InputError(
            "this run cannot be served by plain vLLM as it was trained",
            problems,
            remedy="leave --server vllm out: `swift deploy --backend vllm` does it",
        )
    return made


def _flag(name: str, value: SwiftValue) -> dict[str, SwiftValue]:
    if value is True:
        return {name: []}
    if value is False:
        return {f"no-{name}": []}
    return {name: value}
