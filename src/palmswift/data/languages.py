"""Which language a text is in, as far as its script tells."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SCRIPTS = {
    "Chinese": re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"),
    "Japanese": re.compile(r"[\u3040-\u30ff]"),
    "Korean": re.compile(r"[\uac00-\ud7af\u1100-\u11ff]"),
    "Latin": re.compile(r"[A-Za-z\u00c0-\u024f]{2,}"),
    "Cyrillic": re.compile(r"[\u0400-\u04ff]{2,}"),
    "Arabic": re.compile(r"[\u0600-\u06ff]{2,}"),
}
"""A Han character and a word of letters carry about as much, so each counts one."""

_ENOUGH = 2000
"""Characters of a row that are looked at."""
_MINOR = 0.2
"""A script with less than this share of the words is passed over (names, units, brands)."""


def language_of(texts: Sequence[str]) -> str:
    """`Chinese`, `Latin` (which letters do not tell apart), `Chinese + Latin` …; `none`: no words.

    Japanese is told by its kana, with which Han characters count as Japanese.
    """
    text = ""
    for part in texts:
        text += part[: _ENOUGH - len(text)] + "\n"
        if len(text) >= _ENOUGH:
            break
    counts = script_counts(text)
    words = sum(counts.values())
    found = [name for name, count in counts.items() if count and count >= _MINOR * words]
    return " + ".join(found) or "none"


def script_counts(text: str) -> dict[str, int]:
    """The words of a text by script (`Chinese`, `Japanese`, `Korean`, `Latin`, `Cyrillic`,
    `Arabic`); Han characters among kana count as Japanese."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    if counts["Japanese"] > 0.1 * counts["Chinese"]:
        counts["Japanese"] += counts["Chinese"]
        counts["Chinese"] = 0
    return counts
