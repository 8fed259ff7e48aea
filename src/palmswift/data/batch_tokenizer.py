"""The model's tokenizer for many strings at once, on all cores, without work that changes nothing.

A text is cut at the added tokens within it, which is what the tokenizer itself does before all
else. Ordinary text goes to tiktoken where that must give the same tokens
(palmswift.data.quick_bpe), the rest to the tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import compress
from operator import not_
from threading import Lock
from typing import Any, Protocol

from tokenizers import Tokenizer

from palmswift.data.quick_bpe import QuickBPE, quick_bpe

WORTH = 10_000_000
"""Characters that take about as long to tokenise as it takes to set up tiktoken: some seconds."""

_KNOWN_STEPS = frozenset(("Sequence", "Split", "ByteLevel", "Digits"))
"""Pre-tokenizers to which it is the same whether a text stands at the start of a string."""


class Tokens(Protocol):
    """What is asked of a `tokenizers.Encoding`."""

    @property
    def ids(self) -> list[int]:
        """The tokens; made anew at each call."""

    def __len__(self) -> int: ...


class BatchTokenizer:
    """Gives the tokens that the tokenizer gives, without special tokens put around a text.

    It can be used by several threads at once.
    """

    def __init__(self, backend: Tokenizer, *, worth: int = WORTH) -> None:
        """`worth`: how many characters have to come before tiktoken is set up."""
        self._backend = backend
        self._quick: QuickBPE | None = None
        self._until_quick = worth
        self._lock = Lock()
        special = not backend.encode_special_tokens
        described = json.loads(backend.to_str())
        self.separators = frozenset(_separators(described) if special else ())
        """Added tokens at which a text can be cut: its parts have the same tokens as the whole."""
        added = sorted((token["content"] for token in described["added_tokens"]), reverse=True)
        self._added = re.compile("|".join(map(re.escape, added)) if added else r"(?!)")

    def tokenize(self, texts: Sequence[str]) -> Sequence[Tokens]:
        """The tokens of each text, in order; what comes again, as a system prompt, costs once."""
        different = list(dict.fromkeys(texts))
        if len(different) == len(texts):
            return self._tokenize(texts)
        found = dict(zip(different, self._tokenize(different), strict=True))
        return [found[text] for text in texts]

    def _tokenize(self, texts: Sequence[str]) -> Sequence[Tokens]:
        with self._lock:
            if self._until_quick > 0:
                self._until_quick -= sum(map(len, texts))
                if self._until_quick <= 0:
                    self._quick = quick_bpe(self._backend)
        quick = self._quick
        if quick is None:
            return self._encode(texts)
        flags = [quick.covers(text) and not self._added.search(text) for text in texts]
        by_quick = iter(quick.tokenize(list(compress(texts, flags))))
        others = iter(self._encode(list(compress(texts, map(not_, flags)))))
        return [next(by_quick) if flag else next(others) for flag in flags]

    def _encode(self, texts: Sequence[str]) -> Sequence[Tokens]:
        encodings: Sequence[Tokens] = self._backend.encode_batch_fast(
            texts, add_special_tokens=False
        )
        return encodings


def _separators(described: dict[str, Any]) -> Iterator[str]:
    steps = json.dumps(described["pre_tokenizer"])
    if not set(re.findall(r'"type": "(\w+)"', steps)) <= _KNOWN_STEPS:
        return
    added = [token["content"] for token in described["added_tokens"]]
    for token in described["added_tokens"]:
        text = token["content"]
        # A token that is found in the text as it is, and needs nothing beside it.
        if any(token[key] for key in ("normalized", "lstrip", "rstrip", "single_word")):
            continue
        if not any(_overlap(other, text) for other in added if other != text):
            yield text


def _overlap(other: str, token: str) -> bool:
    """Whether `other` can be found where `token` stands, and begin with it or before it."""
    ends = (other[start:] for start in range(len(other)))
    return any(token.startswith(end) or end.startswith(token) for end in ends)
