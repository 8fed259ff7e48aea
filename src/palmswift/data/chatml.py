"""ChatML text (`<|im_start|>role … <|im_end|>` blocks) to turns."""

from __future__ import annotations

import re

from palmswift.data.row import RowError

_START = "<|im_start|>"
_BLOCK = re.compile(
    r"<\|im_start\|>[ \t]*([^\n<]*?)[ \t]*(?:\r?\n|\Z)(.*?)(<\|im_end\|>|(?=<\|im_start\|>)|\Z)\s*",
    re.DOTALL,
)
_TAIL = re.compile(r"(?:<\|endoftext\|>\s*)+\Z")


def is_chatml(value: object) -> bool:
    """Whether a value is text that begins as ChatML does."""
    return isinstance(value, str) and value.lstrip("\ufeff \t\r\n").startswith(_START)


def turns_of(text: str) -> list[tuple[str, str]]:
    """Role and content of each block; an open `assistant` block without content is left out.

    RowError: text outside of blocks, a block that is not closed (only an answer at the end may be),
    or a second dialogue in the same text.
    """
    text = _TAIL.sub("", text.strip("\ufeff \t\r\n"))
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        block = _BLOCK.match(text, position)
        if block is None:
            stray = text[position : position + 40]
            raise RowError("broken_chatml", f"text outside of a block: {stray!r}")
        role, content, end = block.group(1), block.group(2), block.group(3)
        position = block.end()
        if role == "system" and found:
            raise RowError("broken_chatml", "a second dialogue begins in the same text")
        if not end:
            if position < len(text) or role != "assistant":
                raise RowError("broken_chatml", f"the {role} block is not closed by <|im_end|>")
            if not content.strip():
                break
        found.append((role, content))
    if not found:
        raise RowError("broken_chatml", "there is no block with content")
    return found
