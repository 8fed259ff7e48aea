"""Makes a large card behave as a small one: an ms-swift plugin for measuring.

What it does: before the model is loaded it limits PyTorch's allocator to a number of MiB, so that
what would not fit a card of that size runs out of memory here as well. Whoever asks for the card's
size or free memory is told the small one, cuDNN's attention is switched off, which small cards do
not pick, and cuBLAS gets the workspace that it has on them.

What it saves and costs: nothing; speed is still the large card's. The limit holds for the
allocator: the CUDA context (200 to 500 MiB) and bitsandbytes' paged states come on top, so set it
to what PyTorch gets of the small card. For 8,188 MiB with a desktop on it that is 7,688.

When it cannot act, the training stops before loading: there is no CUDA card, the setting is not a
number, or the card is smaller than that.

Settings: PALMSWIFT_GPU_CAP_MIB, MiB that PyTorch may reserve (7688). Serving, merging and inference
are as without it.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from swift.arguments import SftArguments
from swift.utils import get_logger

VARIABLE = "PALMSWIFT_GPU_CAP_MIB"
DEFAULT_MIB = 7688

WORKSPACE = ":4096:2:16:8"
"""cuBLAS's own for cards before Hopper, 8.1 MiB; on Hopper it takes 32 MiB."""


def cap(mib: int) -> None:
    """Limit the current card to `mib` MiB; `ValueError` where that cannot be."""
    if not torch.cuda.is_available():
        raise ValueError("gpu_cap: there is no CUDA card here; take the plugin out of plugins")
    free, total = torch.cuda.mem_get_info()
    limit = mib << 20
    if limit > free:
        raise ValueError(
            f"gpu_cap: {VARIABLE} asks for {mib} MiB, and the card has {free >> 20} MiB free "
            f"of {total >> 20}"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    torch.cuda.set_per_process_memory_fraction(limit / total)
    torch.backends.cuda.enable_cudnn_sdp(False)

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        return max(0, limit - torch.cuda.memory_reserved(device)), limit

    torch.cuda.mem_get_info = mem_get_info


def cap_from_environment() -> int:
    """MiB that PyTorch may reserve; `ValueError` when the variable holds no number above 0."""
    said = os.environ.get(VARIABLE, "").strip() or str(DEFAULT_MIB)
    if not said.isdecimal() or int(said) < 1:
        raise ValueError(f"gpu_cap: {VARIABLE} is {said!r}; write a number of MiB, like 7688")
    return int(said)


def _install() -> None:
    """Act on what `swift sft`, `pt` and `rlhf` load; no other command has these arguments."""
    load = SftArguments.get_model_processor
    capped: list[int] = []

    @functools.wraps(load)
    def get_model_processor(self: Any, **named: Any) -> Any:
        if not capped:
            mib = cap_from_environment()
            cap(mib)
            capped.append(mib)
            get_logger().info(f"gpu_cap: PyTorch may reserve {mib} MiB of the card")
        return load(self, **named)

    SftArguments.get_model_processor = get_model_processor


_install()
