"""tiktoken in place of tokenizers, for texts and vocabularies where both must give the same tokens.

Both are byte-level BPE, and tiktoken takes less than half the time. They differ in what they merge:
tokenizers two neighbours that its list of merges names as a pair, tiktoken any two whose bytes
together are a token. That makes no difference if (1) the parts of each merge are single bytes or
made by earlier merges, (2) no token is made by two merges, and (3) the bytes of each token are
merged to that token. For let x and y be neighbours that tiktoken merges to t, of all that it could
merge the first in rank, while the list makes t of a and b. By (1) ranks only rise while a text is
merged, so all merges within the bytes of t that rank before t are done, and none reached beyond
them. So it would stand if those bytes stood alone; there, by (3) and (2), a and b are left.
(1) to (3) are checked for each merge. Words are divided by the same expression in two libraries;
that they mean the same by it is checked for every character that is let through.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tiktoken
from tokenizers import Tokenizer

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 and Qwen3 divide text into words (transformers, tokenization_qwen2.py)."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How `ByteLevel` divides it by itself (tokenizers, byte_level.rs)."""

_ORDINARY = (
    (0x0009, 0x000A),
    (0x000D, 0x000D),
    (0x0020, 0x007E),
    (0x00A1, 0x017E),  # Latin without ſ, which is an s where case does not matter
    (0x0391, 0x03A1),
    (0x03A3, 0x03C9),
    (0x0400, 0x045F),
    (0x2010, 0x2027),  # dashes, quotation marks, …
    (0x2030, 0x205E),
    (0x2190, 0x2328),
    (0x232B, 0x23FF),
    (0x2460, 0x2ADB),
    (0x3000, 0x3029),
    (0x3041, 0x3096),
    (0x30A1, 0x30FE),
    (0x3105, 0x312D),
    (0x3200, 0x321E),
    (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3),
    (0xFE0F, 0xFE0F),
    (0xFF01, 0xFF5E),
    (0xFFE0, 0xFFE6),
    (0x1F300, 0x1F64F),
    (0x1F680, 0x1F6FC),
    (0x1F900, 0x1F9FF),
)
"""Characters that are let through: none is changed or joined with another by normal form NFC."""

_LONGEST = 20_000
"""Characters of a text; in longer ones a word may be so long that tiktoken gets slow."""

_EDGE = "\ue000"
"""Stands between two texts; not a character that is let through."""

_PROBE = 500
"""Characters that are probed in one text."""


class _Ranked(NamedTuple):
    """Tokens by their rank among the merges."""

    ranks: list[int]
    id_of_rank: Sequence[int]

    @property
    def ids(self) -> list[int]:
        """The tokens as the vocabulary numbers them."""
        return [self.id_of_rank[rank] for rank in self.ranks]

    def __len__(self) -> int:
        return len(self.ranks)


class QuickBPE:
    """A tokenizer's vocabulary in tiktoken; only for texts that it covers."""

    def __init__(self, pattern: str, ranks: dict[bytes, int], ids: Sequence[int]) -> None:
        self._ids = ids
        self._edge = len(ranks)
        self._encoding = tiktoken.Encoding(
            "palmswift",
            pat_str=pattern,
            mergeable_ranks=ranks,
            special_tokens={_EDGE: self._edge},
        )
        ranges = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in _ORDINARY)
        self._other = re.compile(f"[^{ranges}]")

    def covers(self, text: str) -> bool:
        """Whether the text is short enough and of characters that are known to be divided alike."""
        return len(text) <= _LONGEST and (text.isascii() or not self._other.search(text))

    def tokenize(self, texts: Sequence[str]) -> list[_Ranked]:
        """The tokens of each text, in order; all in one call, so that other threads can work."""
        joined = self._encoding.encode(
            _EDGE.join(texts), allowed_special={_EDGE}, disallowed_special=()
        )
        joined.append(self._edge)
        found = []
        start = 0
        for _ in texts:
            end = joined.index(self._edge, start)
            found.append(_Ranked(joined[start:end], self._ids))
            start = end + 1
        return found


def quick_bpe(backend: Tokenizer) -> QuickBPE | None:
    """The tokenizer in tiktoken; None where it may not give the same tokens."""
    described = json.loads(backend.to_str())
    pattern = _pattern(described)
    if pattern is None:
        return None
    model = described["model"]
    byte_of = {character: byte for byte, character in _byte_characters()}
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    made = {left + right: rank for rank, (left, right) in enumerate(merges, len(byte_of))}
    order = [*byte_of, *made]
    if len(made) != len(merges) or not all(token in model["vocab"] for token in order):
        return None
    seen = set(byte_of)
    for left, right in merges:
        if left not in seen or right not in seen:
            return None
        seen.add(left + right)
    if not _each_is_itself(described, order):
        return None
    ranks = {bytes(byte_of[c] for c in token): rank for rank, token in enumerate(order)}
    quick = QuickBPE(pattern, ranks, [model["vocab"][token] for token in order])
    return quick if _divides_alike(quick, backend) else None


def _pattern(described: dict[str, Any]) -> str | None:
    """The expression that divides words, if all else of the tokenizer is known."""
    model, steps = described["model"], described["pre_tokenizer"]
    settings = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    if model["type"] != "BPE" or any(model.get(name) for name in (*settings, "byte_fallback")):
        return None
    if described["normalizer"] not in (None, {"type": "NFC"}) or steps is None:
        return None
    for pattern in (QWEN, GPT2):
        split = {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
        known: list[dict[str, Any]] = [{"type": "Sequence", "pretokenizers": [split, bytes_only]}]
        if pattern == GPT2:
            known.append({**bytes_only, "use_regex": True})
        if _without_offsets(steps) in known:
            return pattern
    return None


def _without_offsets(steps: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in steps.items() if key != "trim_offsets"}
    if "pretokenizers" in kept:
        kept["pretokenizers"] = [_without_offsets(step) for step in kept["pretokenizers"]]
    return kept


def _byte_characters() -> Iterator[tuple[int, str]]:
    """Bytes, and the characters that stand for them in a byte-level vocabulary (GPT-2)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    yield from ((byte, chr(byte)) for byte in shown)
    hidden = (byte for byte in range(0x100) if byte not in shown)
    yield from ((byte, chr(0x100 + number)) for number, byte in enumerate(hidden))


def _each_is_itself(described: dict[str, Any], tokens: list[str]) -> bool:
    bare = {**described, "added_tokens": []}
    bare |= dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor"))
    merger = Tokenizer.from_str(json.dumps(bare))
    return all(len(found) == 1 for found in merger.encode_batch_fast(tokens))


def _divides_alike(quick: QuickBPE, backend: Tokenizer) -> bool:
    """Whether both give the same tokens for each character before, after and between others."""
    characters = [chr(code) for first, last in _ORDINARY for code in range(first, last + 1)]
    if any(unicodedata.normalize("NFC", c) != c or unicodedata.combining(c) for c in characters):
        return False
    frames = ("a{}1", "'{}s", " {}. ", "\n{}{}\n")
    texts = [
        "".join(frame.replace("{}", character) for character in characters[start : start + _PROBE])
        for frame in frames
        for start in range(0, len(characters), _PROBE)
    ]
    expected = backend.encode_batch_fast(texts, add_special_tokens=False)
    found = quick.tokenize(texts)
    return all(a.ids == b.ids for a, b in zip(found, expected, strict=True))
