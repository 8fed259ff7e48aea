"""Why a server did not start or died, from the end of its log."""

from __future__ import annotations

import re
from pathlib import Path

from palmswift.errors import ChildError, Problem
from palmswift.launchers.diagnosis import Diagnosis, diagnose, log_tail

# The first match wins. Failures that training has too stand in launchers/diagnosis.py.
_KNOWN: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"address already in use",
        Diagnosis(
            "port_taken", "the port is taken", "--port 0 picks a free one; or deploy/stop.py"
        ),
    ),
    (
        r"OutOfMemoryError|CUDA out of memory|No available memory for the cache blocks",
        Diagnosis(
            "out_of_memory",
            "the GPU's memory ran out",
            "--set max_batch_size=1, with vLLM --set vllm_max_model_len=2048; or 4 bit: "
            "--set quant_method=bnb --set quant_bits=4",
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
        r"does not appear to have a file named|no file named|Unrecognized model in"
        r"|Can't load tokenizer|Couldn't instantiate the backend tokenizer",
        Diagnosis(
            "incomplete_model",
            "files of the model are missing",
            "a model folder has config.json, tokenizer files and *.safetensors",
        ),
    ),
    (
        r"Failed to automatically match `(model|template)_type`[^\n]*Multiple possible types "
        r"found: (?P<detail>\[[^\]]*\])",
        Diagnosis(
            "ambiguous_type",
            "ms-swift cannot tell the model's type from its folder; it may be",
            "say type and template, for a Qwen3 chat model: --set model_type=qwen3 "
            "--set template=qwen3",
        ),
    ),
    (
        r"remaining_argv: (?P<detail>\[.*\])",
        Diagnosis(
            "unknown_argument",
            "`swift deploy` of the installed ms-swift does not know",
            "take it out of deploy.swift in the recipe, or out of --set",
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
    (
        r"invalid choice: (?P<detail>[^\n]{1,120})",
        Diagnosis("bad_value", "an argument has a value that ms-swift refuses", "see its choices"),
    ),
)


def explain(log: Path, exit_code: int | None) -> Diagnosis:
    """The known failure that the end of the log shows, else what training's table says."""
    text = "\n".join(log_tail(log, lines=400))
    for pattern, diagnosis in _KNOWN:
        if match := re.search(pattern, text):
            detail = match.groupdict().get("detail")
            return diagnosis._replace(
                cause=f"{diagnosis.cause}: {detail}" if detail else diagnosis.cause
            )
    return diagnose(log, exit_code)


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
