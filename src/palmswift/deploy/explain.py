"""Why a server did not start or died, from the end of its log."""

from __future__ import annotations

import re
from pathlib import Path

from palmswift.errors import ChildError, Problem
from palmswift.launchers.diagnosis import Diagnosis, diagnose, log_tail

# What servers alone fail by; all else stands in launchers/failures.py. The first match wins.
_KNOWN: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"No available memory for the cache blocks",
        Diagnosis("out_of_memory", "no GPU memory is left for the context (KV cache)", ""),
    ),
    (
        r"(?P<detail>\w+ memory \S.{0,60}? on startup is less than desired .{0,60}?\([^)]*\))",
        Diagnosis(
            "memory_taken",
            "less memory is free than vLLM is to take",
            "--set vllm_gpu_memory_utilization=0.6, or end what holds the rest; on a CPU "
            "VLLM_CPU_KVCACHE_SPACE=4 (GiB) in the environment asks for less",
        ),
    ),
    (
        r"larger than the maximum number of tokens that can be stored in KV cache",
        Diagnosis(
            "context_too_long",
            "the model's context does not fit into the memory that is left",
            "--set vllm_max_model_len=2048",
        ),
    ),
    (
        r"size mismatch for \S*lora_|Target modules .* not found in the base model"
        r"|`[^`]*` is not an adapter",
        Diagnosis(
            "adapter_mismatch",
            "the adapter does not belong to this model",
            "base_model_name_or_path in its adapter_config.json names the model it was trained on",
        ),
    ),
    (
        r"No module named '(?P<detail>vllm|sglang|lmdeploy)\b",
        Diagnosis(
            "missing_backend",
            "the backend is not installed",
            "--backend transformers needs nothing more; for vLLM: pip install 'palmswift[vllm]'",
        ),
    ),
)

_REMEDIES = {
    "port_taken": "--port 0 picks a free one; or deploy/stop.py",
    "out_of_memory": "--set max_batch_size=1, with vLLM --set vllm_max_model_len=2048; or 4 bit: "
    "--set quant_method=bnb --set quant_bits=4",
    "broken_model": "a model folder has config.json, tokenizer files and *.safetensors",
    "ambiguous_type": "say type and template, for a Qwen3 chat model: --set model_type=qwen3 "
    "--set template=qwen3",
    "unknown_argument": "take it out of deploy.swift in the recipe, or out of --set",
    "bad_value": "see its choices: swift deploy --help",
}
"""What is to be done about a failure that training has too, where a server is told otherwise."""


def explain(log: Path, exit_code: int | None) -> Diagnosis:
    """The known failure that the end of the log shows: a server's own, or one of training's."""
    text = "\n".join(log_tail(log, lines=400))
    for pattern, diagnosis in _KNOWN:
        if match := re.search(pattern, text):
            detail = match.groupdict().get("detail")
            cause = f"{diagnosis.cause}: {detail}" if detail else diagnosis.cause
            return _for_a_server(diagnosis._replace(cause=cause))
    return _for_a_server(diagnose(log, exit_code))


def _for_a_server(found: Diagnosis) -> Diagnosis:
    return found._replace(remedy=_REMEDIES.get(found.kind, found.remedy))


def server_error(what: str, log: Path, exit_code: int | None = None) -> ChildError:
    """An error that says `what` happened, its cause, the last lines of the log and the remedy."""
    found = explain(log, exit_code)
    lines = (
        "\n      ".join(line[:300] for line in log_tail(log, lines=6)) or "(nothing was written)"
    )
    return ChildError(
        f"{what}: {found.cause}",
        [Problem(f"the last lines are\n      {lines}", str(log))],
        remedy=found.remedy,
    )
