"""GPU memory that ran out: in which phase, how much was asked for, and who holds the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from palmswift.launchers.tracebacks import Raised

_OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|^(?:torch\.)?(?:cuda\.)?OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDA error: out of memory|CUDA driver error: out of memory|NPU out of memory"
    r"|MPS backend out of memory"
)
OUT_OF_MEMORY_REMEDY = (
    "launchers/plan.py --recipe NAME --fit finds settings that fit; or a smaller recipe"
)
GPU_IN_USE_REMEDY = (
    "nvidia-smi names them: close them, python deploy/stop.py --all for servers, kill what a run "
    "of before left over; then resume"
)

_OTHERS_GIB = 1.0
"""What other processes hold counts as the cause from here on (a desktop takes less), where it is
more than what was lacking."""

_CONTEXT_GIB = 3.0
"""At most what a CUDA context, NCCL and other libraries take beside PyTorch's own memory."""

# Later phases call earlier ones' functions, so the first that is found among the calls counts.
_PHASES: tuple[tuple[str, str], ...] = (
    ("merge", r"merge_(?:and_unload|lora)|export/merge_lora\.py"),
    ("generation", r"rollout_mixin\.py|_generate_(?:and_score_)?completions|infer_engine/|vllm/"),
    ("evaluation", r":(?:evaluate|evaluation_loop|prediction_step|prediction_loop|predict)$"),
    ("save", r":(?:_save_checkpoint|save_model|_save_model|_save|save_pretrained)$"),
    ("optimizer", r"/optim(?:izer)?s?/|optimizer\.py:step|:(?:init|update)_(?:state|step)$"),
    ("backward", r":(?:backward|_engine_run_backward)$"),
    ("forward", r":(?:training_step|compute_loss|_inner_training_loop)$"),
    ("encode", r"template/base\.py:|preprocessor/core\.py:|:_encode_dataset$"),
    ("load", r":(?:from_pretrained|get_model_processor|_load_pretrained_model|prepare_model)$"),
)

_WORDS = {
    "load": "while the model was loaded",
    "encode": "while rows were encoded",
    "forward": "in the forward pass",
    "backward": "in the backward pass",
    "optimizer": "in the optimizer's step",
    "generation": "while answers were generated",
    "evaluation": "in an evaluation",
    "save": "while a checkpoint was saved",
    "merge": "while the adapter was merged",
    "": "",
}


class MemoryFailure(NamedTuple):
    """As `Diagnosis` has it."""

    kind: str
    cause: str
    remedy: str
    phase: str


def memory_failure(raised: Sequence[Raised]) -> MemoryFailure | None:
    """What is said of GPU memory in the exceptions that ended a program; None: nothing."""
    for one in raised:
        if _OUT_OF_MEMORY.search(one.said):
            phase = phase_of(one)
            foreign = _held_by_others(one.text)
            if foreign:
                return _others(foreign, one.text, phase)
            return MemoryFailure(
                "out_of_memory",
                f"the GPU's memory ran out {_WORDS[phase]}".rstrip() + _amounts(one.text),
                OUT_OF_MEMORY_REMEDY,
                phase,
            )
    return None


def phase_of(raised: Raised) -> str:
    """The phase that an exception came from, by its calls; empty when they do not tell."""
    calls = [f"{frame.file}:{frame.function}" for frame in raised.frames]
    for phase, pattern in _PHASES:
        if any(re.search(pattern, call) for call in calls):
            return phase
    return ""


def _amounts(text: str) -> str:
    asked = re.search(r"Tried to allocate ([\d.]+ [KMG]iB)", text)
    card = re.search(
        r"total capac(?:i)?ty of ([\d.]+ GiB)(?: of which ([\d.]+ \w+) is free)?", text
    )
    words = []
    if asked:
        words.append(f"{asked[1]} more were asked for")
    if card:
        words.append(f"{card[2]} of {card[1]} were free" if card[2] else f"the card has {card[1]}")
    return f": {', '.join(words)}" if words else ""


def _held_by_others(text: str) -> float:
    """GiB of the card that other processes hold, 0 where that is not what it failed by.

    In a container its own process has a number like the others', so what PyTorch says that it holds
    itself is taken off.
    """
    processes = [
        _as_gib(number, unit)
        for number, unit in re.findall(r"Process \d+ has ([\d.]+) (\w+) memory in use", text)
    ]
    own = _gib(text, r"Of the allocated memory ([\d.]+) (\w+)")
    own += _gib(text, r"and ([\d.]+) (\w+) is reserved by PyTorch")
    if "this process has" not in text:
        own_process = min(processes, key=lambda held: abs(held - own), default=0.0)
        if own_process - own <= _CONTEXT_GIB and own_process in processes:
            processes.remove(own_process)
    held = sum(processes)
    asked = _gib(text, r"Tried to allocate ([\d.]+) (\w+)")
    free = _gib(text, r"of which ([\d.]+) (\w+) is free")
    return held if held >= max(_OTHERS_GIB, asked - free) else 0.0


def _others(held: float, text: str, phase: str) -> MemoryFailure:
    numbers = ", ".join(re.findall(r"Process (\d+) has", text)[:4])
    return MemoryFailure(
        "gpu_in_use",
        f"other processes hold {held * 1024:,.0f} MiB of the GPU's memory ({numbers})",
        GPU_IN_USE_REMEDY,
        phase,
    )


def _gib(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    return _as_gib(found[1], found[2]) if found else 0.0


def _as_gib(number: str, unit: str) -> float:
    sizes = {"bytes": 2.0**-30, "KiB": 2.0**-20, "MiB": 2.0**-10, "GiB": 1.0, "TiB": 1024.0}
    return float(number) * sizes.get(unit, 0.0)
