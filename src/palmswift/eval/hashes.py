"""One spelling of every JSON document, and short hashes of it for indexes of many rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(order="deterministic")


def canonical_json(document: Any) -> bytes:
    """The document as compact JSON in UTF-8 with sorted keys; equal documents give equal bytes."""
    try:
        return _ENCODER.encode(document)
    except OverflowError:  # msgspec has no integers beyond 64 bits
        text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return text.encode()


def hash64(document: Any) -> int:
    """64 bits that stand for a document: two of a million share them once in 30 million tries."""
    digest = hashlib.blake2b(canonical_json(document), digest_size=8).digest()
    return int.from_bytes(digest, "little")
