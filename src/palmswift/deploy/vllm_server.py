"""A plain vLLM server: its arguments, made of what a run's `swift deploy` would be given.

It is for what `swift deploy --infer_backend vllm` has not: several adapters on one base by name,
the base beside them, Prometheus' `/metrics`. The template is the chat template that lies beside
the trained weights; `deploy/parity.py` shows whether it makes the training's tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from palmswift.deploy.adapters import adapted_modules, vllm_lora_rank
from palmswift.deploy.backends import engine_arguments, generation_defaults
from palmswift.deploy.spec import ServerSpec
from palmswift.errors import InputError, Problem
from palmswift.launchers.checkpoint_files import read_document
from palmswift.recipes.recipe import SwiftValue

PROGRAM = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
"""`vllm serve` looks for a distribution called vllm, which the CPU build is not."""

BOUNDS = "palmswift.deploy.request_bounds.RequestBounds"
"""The middleware that bounds its memory; for a server where palmswift is installed."""

KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM looks for the key that it asks of its clients."""

_RENAMED = {"torch_dtype": "dtype", "max_logprobs": "max-logprobs"}
"""ms-swift's name to vLLM's."""

_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")
"""Arguments that say what a request gets which says nothing."""

_SAID_ELSEWHERE = {
    *("model_type", "template", "add_non_thinking_prefix", "preserve_thinking", "attn_impl"),
    *("max_batch_size", "infer_backend", "external_plugins", "use_cpu", "model_revision"),
    *("use_hf", "max_model_len", "vllm_max_lora_rank", "vllm_use_async_engine", "log_interval"),
    *("bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "quant_bits"),
}
"""Arguments that the chat template, the weights, vLLM's scheduler or other arguments stand for."""

_CHATML = ("chatml", "qwen")
"""How the names of templates begin that end a turn with ChatML's token."""

_CHATML_END = "<|im_end|>"

_BY_SWIFT = "--server swift --backend vllm: ms-swift's own server does it"

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
        # A penalty of the model's generation_config.json would change answers; what is kept of it
        # is written out in override-generation-config.
        "generation-config": "vllm",
        "no-enable-log-requests": [],
    }
    if adapters:
        arguments["enable-lora"] = []
        arguments["lora-modules"] = [f"{name}={path}" for name, path in adapters.items()]
        arguments["max-loras"] = len(adapters)
        arguments["max-lora-rank"] = max(map(vllm_lora_rank, adapters.values()))
        if modules := {name for path in adapters.values() for name in adapted_modules(path)}:
            arguments["lora-target-modules"] = sorted(modules)
    _require_stop(spec)
    settings = engine_arguments("vllm", spec.model, None, spec.swift) | spec.swift
    return {**arguments, **_settings(generation_defaults(spec.model) | settings)}


def adapters_of(spec: ServerSpec) -> dict[str, Path]:
    """Every adapter of the server by the name that clients send."""
    own = {} if spec.adapter is None else {spec.name: spec.adapter}
    return {**own, **spec.more_adapters}


def _settings(swift: Mapping[str, SwiftValue]) -> dict[str, SwiftValue]:
    """ms-swift's serving arguments in vLLM's words."""
    made: dict[str, SwiftValue] = {}
    sampling: dict[str, object] = {}
    problems: list[Problem] = []
    for name, value in swift.items():
        if name in _SAID_ELSEWHERE:
            continue
        if name == "enable_thinking":
            made["default-chat-template-kwargs"] = {"enable_thinking": value}
        elif name in _SAMPLING:
            sampling[name] = value
        elif name in _RENAMED:
            made[_RENAMED[name]] = value
        elif name == "quant_method" and value == "bnb":
            continue  # vllm_quantization says it
        elif name.startswith("vllm_"):
            made |= _flag(name.removeprefix("vllm_").replace("_", "-"), value)
        else:
            problems.append(Problem("plain vLLM has nothing that does this", f"swift.{name}"))
    if problems:
        raise InputError(
            "this run cannot be served by plain vLLM as it was trained",
            problems,
            remedy=_BY_SWIFT,
        )
    return {**made, "override-generation-config": sampling} if sampling else made


def _require_stop(spec: ServerSpec) -> None:
    """`InputError` when the token that ended answers in training would not end them here.

    vLLM ends at the tokenizer's end token and at those of generation_config.json; ms-swift adds
    the template's, which for a base model (not -Instruct) can be another.
    """
    folder, template = Path(spec.model), str(spec.swift.get("template") or "")
    tokenizer = read_document(folder / "tokenizer.json")
    if tokenizer is None or not template.startswith(_CHATML):
        return
    added = tokenizer.get("added_tokens") or []
    ids = {token["content"]: token["id"] for token in added if isinstance(token, dict)}
    generation = read_document(folder / "generation_config.json") or {}
    told = generation.get("eos_token_id")
    ends = {*(told if isinstance(told, list) else [told])}
    end = (read_document(folder / "tokenizer_config.json") or {}).get("eos_token")
    ends.add(ids.get(end.get("content") if isinstance(end, dict) else end))
    if _CHATML_END in ids and ids[_CHATML_END] not in ends:
        what = f"vLLM would not end answers at {_CHATML_END}, as the training did"
        where = f"{folder / 'generation_config.json'}: eos_token_id"
        raise InputError(f"{spec.name} would never stop", [Problem(what, where)], remedy=_BY_SWIFT)


def _flag(name: str, value: SwiftValue) -> dict[str, SwiftValue]:
    if value is True:
        return {name: []}
    if value is False:
        return {f"no-{name}": []}
    return {name: value}
