"""Whether a GGUF file is for a card with 8 GB, and with how long a context: an estimate."""

from __future__ import annotations

from pathlib import Path

from palmswift.launchers.checkpoint_files import read_document

_CARD = 8 * (1 << 30)
_STANDING = 1 << 30
"""CUDA's own memory, llama.cpp's compute buffers and a desktop: not measured, so a round number."""

_STEP = 256


def on_eight_gb(file_bytes: int, model: Path, longest: int) -> str:
    """A sentence on the file, for the model that it was made of; `longest` context in tokens."""
    size = f"{file_bytes / 1e9:.2f} GB"
    each = cache_bytes(model)
    free = _CARD - _STANDING - file_bytes
    if free < each * _STEP:
        return f"{size}: too much for a card with 8 GB; llama.cpp then keeps some layers in RAM"
    fits = free // each // _STEP * _STEP if each else longest
    tokens = f"{min(fits, longest):,} tokens of context" if longest else "a short context"
    return f"{size}: fits a card with 8 GB with {tokens} (an estimate; 16-bit cache)"


def cache_bytes(model: Path) -> int:
    """Bytes of keys and values in 16 bit that a token takes; 0: config.json is silent."""
    config = read_document(model / "config.json") or {}
    heads = int(config.get("num_key_value_heads") or config.get("num_attention_heads") or 0)
    wide = int(config.get("hidden_size") or 0) // int(config.get("num_attention_heads") or 1)
    dim = int(config.get("head_dim") or wide)
    return 2 * 2 * int(config.get("num_hidden_layers") or 0) * heads * dim
