"""Which of llama.cpp's pre-tokenizers a tokenizer has, read out of its tokenizer.json.

llama.cpp's converter knows tokenizers by a hash of what they make of one text, and refuses all
others, one that was trained anew included. What decides is the rule by which text is cut before the
merges; where it is, to the letter, one that llama.cpp has, the tokenizer may be declared as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Of Qwen2's to Qwen3's tokenizer.json; llama.cpp's src/llama-vocab.cpp quotes it at `QWEN2`."""


class PreTokenizer(NamedTuple):
    """llama.cpp's name for the rule, or why there is none."""

    name: str | None
    reason: str
    normalises: bool
    """Whether the tokenizer composes characters first (NFC), which llama.cpp does not do."""


def pre_tokenizer_of(tokenizer: Mapping[str, Any]) -> PreTokenizer:
    """What tokenizer.json says, compared with what llama.cpp does."""
    normalizer = tokenizer.get("normalizer")
    normalises = normalizer == {"type": "NFC"}
    name = _cutting(tokenizer.get("pre_tokenizer"))
    reason = "" if name else "its text is cut by a rule that llama.cpp does not have"
    if normalizer is not None and not normalises:
        name, reason = None, f"it normalises text by {_kind(normalizer)}"
    elif problem := _merging(tokenizer.get("model")):
        name, reason = None, problem
    return PreTokenizer(name, reason, normalises)


def _cutting(rule: Any) -> str | None:
    if _is_byte_level(rule, cuts=True):
        return "gpt-2"
    steps = rule.get("pretokenizers") if isinstance(rule, dict) else None
    if not isinstance(steps, list) or len(steps) != 2 or rule.get("type") != "Sequence":
        return None
    split = {
        "type": "Split",
        "pattern": {"Regex": _QWEN2},
        "behavior": "Isolated",
        "invert": False,
    }
    return "qwen2" if steps[0] == split and _is_byte_level(steps[1], cuts=False) else None


def _is_byte_level(rule: Any, *, cuts: bool) -> bool:
    """Whether bytes become letters, with GPT-2's cutting or without, and with no space in front."""
    return (
        isinstance(rule, dict)
        and rule.get("type") == "ByteLevel"
        and rule.get("add_prefix_space") is False
        and rule.get("use_regex", True) is cuts
    )


def _merging(model: Any) -> str:
    """What of the merges llama.cpp would do otherwise; empty when nothing."""
    if not isinstance(model, dict) or model.get("type") != "BPE":
        return f"it is no byte-pair encoding but {_kind(model)}"
    for name in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            return f"it has {name}, which llama.cpp has not"
    if model.get("byte_fallback") or model.get("ignore_merges"):
        return "it has byte_fallback or ignore_merges"
    return ""


def _kind(part: Any) -> str:
    return str(part.get("type")) if isinstance(part, dict) else "nothing"
