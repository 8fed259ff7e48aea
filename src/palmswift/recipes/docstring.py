"""What a class's docstring says about each of its arguments."""

from __future__ import annotations

import re

_LENGTH = 240
_ENTRY = re.compile(r"^(?P<indent>\s+)`{0,2}(?P<name>\w+)`{0,2}\s*\(.+\)\s*:(?P<text>.*)$")


def docstring_entries(docstring: str) -> dict[str, str]:
    """Argument name to text, from Google-style entries `name (type): text` and their indents."""
    texts: dict[str, list[str]] = {}
    current, depth = "", 0
    for line in docstring.expandtabs(4).splitlines():
        entry = _ENTRY.match(line)
        indent = len(line) - len(line.lstrip())
        if entry and (not current or indent <= depth):
            current, depth = entry["name"], indent
            texts[current] = [entry["text"].strip()]
        elif current and line.strip() and indent > depth:
            texts[current].append(line.strip())
        elif line.strip():
            current = ""
    return {name: _shortened(" ".join(lines)) for name, lines in texts.items()}


def _shortened(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    if len(text) <= _LENGTH:
        return text
    end = text.rfind(". ", 0, _LENGTH)
    return text[: end + 1] if end > 0 else text[: _LENGTH - 1].rstrip() + "…"
