"""An ms-swift plugin: a card whose memory ends at a number of tokens in one batch.

Raises a real `torch.OutOfMemoryError`, in PyTorch's own words, in the phase that is named and when
a batch there has more tokens (rows times length, padding included) than the budget allows:
PALMSWIFT_TEST_MEMORY="evaluation=512,backward=2048". For `save` and `optimizer` the batch of the
step before counts, whose memory the allocator still holds then; `load` and `encode` have no batch,
so any budget is too small for them.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from swift.template import Template
from swift.trainers.mixin import SwiftMixin
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import PreTrainedModel, Qwen3Model

BUDGETS = {
    phase: int(tokens)
    for phase, _, tokens in (
        part.partition("=") for part in os.environ.get("PALMSWIFT_TEST_MEMORY", "").split(",")
    )
    if phase
}

_MESSAGE = (
    "CUDA out of memory. Tried to allocate {mib:.2f} MiB. GPU 0 has a total capacity of 7.63 GiB "
    "of which 11.25 MiB is free. Including non-PyTorch memory, this process has 7.61 GiB memory in "
    "use. Of the allocated memory 7.01 GiB is allocated by PyTorch, and 187.33 MiB is reserved by "
    "PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation "
    "for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)

_last = 0


def spend(phase: str, tokens: int) -> None:
    """Take memory for that many tokens."""
    if tokens > BUDGETS.get(phase, tokens):
        raise torch.OutOfMemoryError(_MESSAGE.format(mib=tokens / 2))


def _before(owner: Any, name: str, phase: str) -> None:
    """Spend the last batch's tokens before a method runs."""
    original = getattr(owner, name)

    def spending(*args: Any, **options: Any) -> Any:
        spend(phase, _last or 2048)
        return original(*args, **options)

    setattr(owner, name, spending)


_forward: Any = Qwen3Model.forward


def _spending_forward(self: Any, input_ids: Any = None, *args: Any, **options: Any) -> Any:
    global _last
    ids: Any = input_ids if input_ids is not None else options.get("inputs_embeds")
    tokens = int(ids.shape[0] * ids.shape[1])
    if not torch.is_grad_enabled():
        spend("evaluation", tokens)
        return _forward(self, input_ids, *args, **options)
    _last = tokens
    spend("forward", tokens)
    output = _forward(self, input_ids, *args, **options)
    hidden = output.last_hidden_state
    if "backward" in BUDGETS and hidden.requires_grad:
        hidden.register_hook(lambda gradient: spend("backward", tokens))
    return output


Qwen3Model.forward = _spending_forward
if "load" in BUDGETS:
    loader = PreTrainedModel._load_pretrained_model

    def _spending_load(*args: Any, **options: Any) -> Any:
        spend("load", 2048)
        return loader(*args, **options)

    PreTrainedModel._load_pretrained_model = staticmethod(_spending_load)
if "encode" in BUDGETS:
    _before(Template, "_encode_truncated", "encode")
if "optimizer" in BUDGETS:
    register_optimizer_step_pre_hook(lambda *args: spend("optimizer", _last))
if "save" in BUDGETS:
    _before(SwiftMixin, "_save_model", "save")
