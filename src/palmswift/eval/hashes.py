"""Short hashes of JSON documents, for indexes of many rows."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(order="deterministic")


def hash64(document: Any) -> int:
    """64 bits that stand for a document: two of a million share them once in 30 million tries."""
    digest = hashlib.blake2b(_ENCODER.encode(document), digest_size=8).digest()
    return int.from_bytes(digest, "little")
