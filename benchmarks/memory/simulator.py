"""The GPU memory of a training step, operation by operation, on a machine without a GPU.

transformers' own Qwen3, torch's autograd, checkpointing, autocast and AdamW run on fake tensors,
and every storage is followed. What CUDA kernels allocate beside that is imitated (kernels.py), as
are bitsandbytes' optimizers and the shipped plugins (levers.py).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.memory import kernels
from benchmarks.memory.model import build
from benchmarks.memory.tracker import Tracker
from palmswift.plan.memory import Peak, TrainingRun, predict

PHASES = {
    "forward": ("layer_forward", "loss_forward"),
    "backward": (
        *("loss_backward", "head_backward", "layer_backward"),
        *("last_layer_backward", "embedding_backward"),
    ),
    "optimizer_step": ("optimizer_step",),
}
"""The simulator's phases, each with the planner's that lie in it."""

_CUBLAS_WORKSPACE = 8519680  # a thread, on sm_89
_MIN_8BIT_NUMBERS = 4096  # bitsandbytes keeps the state of smaller tensors in 32 bits
_BNB_BLOCK = 256


def simulate(run: TrainingRun) -> dict[str, int]:
    """Bytes that stand between steps (`standing`), and the peak of each of `PHASES`.

    It is a step in the middle of a training: optimizer state is there, and with accumulation all
    gradients are. `ValueError` for what is not simulated.
    """
    _refuse(run)
    tracker = Tracker()
    with FakeTensorMode(allow_non_fake_inputs=True), tracker, _rotary(run.liger):
        workspaces = [torch.empty(_CUBLAS_WORKSPACE, dtype=torch.uint8) for _ in range(2)]
        model = build(run, tracker)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = _optimizer(run, model, trained)
        gc.collect()
        standing = tracker.allocated
        if run.accumulation > 1:
            for weight in trained:
                weight.grad = torch.empty_like(weight)
        with tracker.phase("forward"):
            loss = _loss(model, run)
        with tracker.phase("backward"):
            loss.backward()
        del loss
        gc.collect()
        with tracker.phase("optimizer_step"):
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        del workspaces
    return {"standing": standing, **tracker.peaks}


def predicted(peak: Peak) -> dict[str, int]:
    """The planner's figures in the simulator's terms."""
    phases = {
        name: max(peak.total(part) for part in parts if part in peak.phases)
        for name, parts in PHASES.items()
    }
    return {"standing": sum(peak.standing.values()), **phases}


def relative_error(run: TrainingRun) -> float:
    """By how much of the simulated peak the planner is above it (below: negative)."""
    simulated = simulate(run)
    highest = max(simulated.values())
    return predict(run).bytes / highest - 1


def _refuse(run: TrainingRun) -> None:
    unknown = {
        "batches above 1": run.batch > 1,
        "8-bit weights": run.quantized and run.quant_bits == 8,
        "preference pairs": run.preference,
        "a quantised head": run.quantised_head is not None,
    }
    reasons = [name for name, given in unknown.items() if given]
    if reasons:
        raise ValueError(f"not simulated: {', '.join(reasons)}")


@contextmanager
def _rotary(liger: bool) -> Iterator[None]:
    """Liger's rotary embedding, which replaces a function of transformers' module."""
    from transformers.models.qwen3 import modeling_qwen3

    plain = modeling_qwen3.apply_rotary_pos_emb
    if liger:
        modeling_qwen3.apply_rotary_pos_emb = lambda query, key, cos, sin, *_: (
            kernels.LigerRotary.apply(query, key, cos, sin)
        )
    try:
        yield
    finally:
        modeling_qwen3.apply_rotary_pos_emb = plain


def _loss(model: Any, run: TrainingRun) -> torch.Tensor:
    """The loss of one row, of whose last positions `run.kept` have logits."""
    ids = torch.zeros(1, run.length, dtype=torch.long)
    labels = torch.zeros(1, run.kept, dtype=torch.long)
    keep = torch.arange(run.length - run.kept, run.length)
    inputs = {"input_ids": ids, "attention_mask": {"full_attention": None}, "use_cache": False}
    with torch.autocast("cpu", torch.bfloat16):
        if run.liger:
            states = model.model(**inputs).last_hidden_state[:, keep, :]
            loss = kernels.LigerLoss.apply(states.view(-1, states.shape[-1]), model.lm_head.weight)
            return loss / run.accumulation
        out = model(**inputs, labels=labels, logits_to_keep=keep)
    loss, logits = out.loss, out.logits
    del out
    logits = logits.float()  # accelerate's convert_outputs_to_fp32
    logits.argmax(-1)  # ms-swift's token accuracy
    return loss / run.accumulation


def _optimizer(run: TrainingRun, model: Any, trained: list[Any]) -> Any:
    """The optimizer with its state in place."""
    if run.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=1e-4, foreach=True)
    if run.optimizer in ("adamw_torch", "adamw_torch_fused"):
        fused = run.optimizer == "adamw_torch_fused"
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=fused, foreach=not fused)
        for weight in trained:
            weight.grad = torch.empty_like(weight)
        optimizer.step()
        optimizer.zero_grad()
        return optimizer
    return _Bitsandbytes(run.optimizer, model, trained)


class _Bitsandbytes:
    """State of optim/optimizer.py's Adam, or of Lion with one moment; they step in place."""

    def __init__(self, name: str, model: Any, trained: list[Any]) -> None:
        # transformers' create_optimizer keeps embeddings in 32 bits
        embeddings = {
            id(module.weight)
            for module in model.modules()
            if isinstance(module, torch.nn.Embedding)
        }
        moments = 1 if "lion" in name else 2
        self.state: list[torch.Tensor] = []
        for weight in trained:
            small = weight.numel() < _MIN_8BIT_NUMBERS
            if "8bit" not in name or small or id(weight) in embeddings:
                self.state += [
                    torch.empty_like(weight, dtype=torch.float32) for _ in range(moments)
                ]
                continue
            self.state += [torch.empty_like(weight, dtype=torch.uint8) for _ in range(moments)]
            blocks = -(-weight.numel() // _BNB_BLOCK)
            self.state += [torch.empty(blocks, dtype=torch.float32) for _ in range(moments)]

    def step(self) -> None:
        """Nothing is allocated."""
