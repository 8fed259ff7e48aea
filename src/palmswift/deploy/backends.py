"""What computes the answers behind `swift deploy`: each engine's names, packages and limits.

From ms-swift 4.6.0: swift/infer_engine/*_engine.py and swift/pipelines/infer/infer.py, where SGLang
and LMDeploy are given neither an adapter nor a bitsandbytes quantisation, and say nothing of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, NamedTuple

from palmswift.deploy.adapters import (
    adapted_modules,
    vllm_adapter_problems,
    vllm_lora_rank,
)
from palmswift.errors import InputError, Problem
from palmswift.recipes.recipe import SwiftValue

Backend = Literal["transformers", "vllm", "sglang", "lmdeploy"]

VLLM_BNB = "vllm_bnb_plugin"
"""The package by which vLLM 0.32 reads and makes bitsandbytes weights; 4 bits only."""

_MERGE = "merge the adapter (python launchers/export.py) and serve the merged model with --model"


class Engine(NamedTuple):
    """One engine as ms-swift drives it."""

    package: str
    """What has to be installed, by its import name."""
    install: str
    context: str
    """ms-swift's argument for the longest request; empty: the model's own length."""
    adapters: bool
    cpu: bool


ENGINES: Mapping[Backend, Engine] = {
    "transformers": Engine("transformers", "python3 quickstart.py install", "", True, True),
    "vllm": Engine(
        "vllm", "python3 quickstart.py install --vllm", "vllm_max_model_len", True, True
    ),
    "sglang": Engine("sglang", "pip install 'sglang[all]'", "sglang_context_length", False, False),
    "lmdeploy": Engine("lmdeploy", "pip install lmdeploy", "lmdeploy_session_len", False, False),
}


def engine_arguments(
    backend: Backend, model: str, adapter: Path | None, swift: Mapping[str, SwiftValue]
) -> dict[str, SwiftValue]:
    """`swift deploy` arguments that an engine needs beside those of the training, said in full.

    What `swift` says stands over them.
    """
    made: dict[str, SwiftValue] = {}
    if backend == "transformers":
        made["max_batch_size"] = 8
    elif (length := context_length(model, swift)) is not None:
        made[ENGINES[backend].context] = length
    if backend == "vllm" and adapter is not None:
        made["vllm_max_lora_rank"] = vllm_lora_rank(adapter)
        if modules := adapted_modules(adapter):
            # By default the output layer gets a LoRA too, and the engine dies of a request for
            # prompt_logprobs (vllm_adapter_problems).
            made["vllm_engine_kwargs"] = {"lora_target_modules": modules}
    if backend == "vllm" and swift.get("quant_method") == "bnb":
        # Otherwise ms-swift gives vLLM the 16-bit weights, four times as large, without a word.
        made["vllm_quantization"] = "bitsandbytes"
    return made


def context_length(model: str, swift: Mapping[str, SwiftValue]) -> int | None:
    """Tokens of a request and its answer: `max_model_len`, or what the model was made for."""
    said = swift.get("max_model_len") or _document(model, "config.json").get(
        "max_position_embeddings"
    )
    return said if isinstance(said, int) else None


def generation_defaults(model: str) -> dict[str, SwiftValue]:
    """What a request gets that does not say how to choose tokens; nothing for a hub's model.

    Temperature, top_p and top_k are those of the model's generation_config.json, as transformers
    reads them: greedy without `do_sample`, which vLLM would take for temperature 1. No penalty:
    the training knew none, and with one the likeliest answer is not the trained one.
    """
    if not Path(model).is_dir():
        return {}
    config = _document(model, "generation_config.json")
    made: dict[str, SwiftValue] = {"repetition_penalty": 1.0}
    if not config.get("do_sample"):
        return {"temperature": 0.0, **made}
    kept = {name: config[name] for name in ("temperature", "top_p", "top_k") if name in config}
    numbers = {name: value for name, value in kept.items() if isinstance(value, int | float)}
    return {"temperature": 1.0, **numbers, **made}


def engine_problems(
    backend: Backend, adapters: list[Path], swift: Mapping[str, SwiftValue], *, cpu: bool
) -> list[Problem]:
    """What the engine cannot do as the training did, by name; `cpu`: no GPU is to be used."""
    engine, problems = ENGINES[backend], []
    if adapters and not engine.adapters:
        what = f"ms-swift gives {backend} no adapter, so it would serve the untouched base"
        problems.append(Problem(what, str(adapters[0]), _MERGE))
    if cpu and not engine.cpu:
        what = f"{backend} needs a GPU, and this is served on the CPU"
        problems.append(Problem(what, "--backend", "--backend transformers, or vllm"))
    if backend == "vllm":
        problems += [found for adapter in adapters for found in vllm_adapter_problems(adapter)]
    if swift.get("quant_method") == "bnb" and backend != "transformers":
        problems += _bnb_problems(backend, swift)
    if backend == "lmdeploy" and swift.get("torch_dtype") == "float32":
        what = "LMDeploy computes in 16 bits, and this was trained in float32"
        problems.append(Problem(what, "swift.torch_dtype", "--backend transformers, or vllm"))
    return problems


def _bnb_problems(backend: Backend, swift: Mapping[str, SwiftValue]) -> list[Problem]:
    """Whether weights that are quantised while they are loaded can be had from the engine."""
    where, other = "swift.quant_method", "--backend transformers, or a merged or quantised export"
    if backend != "vllm":
        what = f"ms-swift gives {backend} no bitsandbytes quantisation: it would serve 16 bits"
        return [Problem(what, where, other)]
    wrong = {
        "quant_bits": "vLLM quantises to 4 bits only (bitsandbytes)",
        "bnb_4bit_quant_type": "vLLM quantises to nf4 only (bitsandbytes)",
    }
    right = {"quant_bits": ("4", "None"), "bnb_4bit_quant_type": ("nf4", "None")}
    return [
        Problem(what, f"swift.{name}", other)
        for name, what in wrong.items()
        if str(swift.get(name)) not in right[name]
    ]


def require_installed(backend: Backend, swift: Mapping[str, SwiftValue]) -> None:
    """`InputError` when the engine's packages are missing; nothing is imported."""
    engine = ENGINES[backend]
    problems = []
    if importlib.util.find_spec(engine.package) is None:
        what = f"{engine.package} is not installed in this environment"
        problems.append(Problem(what, "--backend", engine.install))
    elif (
        backend == "vllm"
        and swift.get("quant_method") == "bnb"
        and importlib.util.find_spec(VLLM_BNB) is None
    ):
        what = "vLLM reads bitsandbytes weights by a plugin, which is not installed"
        remedy = "pip install vllm-bnb-plugin; or --backend transformers"
        problems.append(Problem(what, "swift.quant_method", remedy))
    if problems:
        raise InputError(f"the backend {backend} cannot be used here", problems)


def vllm_environment() -> dict[str, str]:
    """Which of vLLM's plugins may run: not ms-swift's where torchvision is missing.

    It imports torchvision, and the engine dies of it. A choice in the environment stands.
    """
    if "VLLM_PLUGINS" in os.environ or importlib.util.find_spec("torchvision") is not None:
        return {}
    found = [plugin.name for plugin in entry_points(group="vllm.general_plugins")]
    return {"VLLM_PLUGINS": ",".join(name for name in found if "swift" not in name) or "none"}


def _document(folder: str, name: str) -> Mapping[str, object]:
    try:
        document = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
