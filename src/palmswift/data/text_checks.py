"""What is checked and mended in the text of one turn, whatever its row is like."""

from __future__ import annotations

import re
from collections.abc import Sequence

from palmswift.data import private
from palmswift.data.policy import Notes
from palmswift.data.row import Role, RowError

_UNUSUAL = re.compile("[0-9@<{锟烫屯锛銆鈥\ufffd\x80-\xff]")
"""A text of printable characters without one of these has nothing that is looked for here."""

_FOREIGN = re.compile("[锟烫屯锛銆鈥\x80-\xff]")
"""What text that was decoded wrongly has one of."""

# NUL, lone surrogates (undecodable bytes among them), and the mark of a lost character
_INVALID = re.compile("[\x00\ud800-\udfff\ufffd]")

_RTL = "\u0590-\u05ff\u0600-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
_JOINING = (
    "\u0600-\u08ff\u0900-\u0dff\u0e00-\u0fff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
)
_EMOJI = "\u00a9\u00ae\u2190-\u2bff\u3030\u303d\ufe0f\U0001f000-\U0001faff\U000e007f"
_DIRECTIONS = "\u034f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BREAKS = "\x0b\x0c\x1c-\x1f"
_NEVER_SEEN = (
    f"\x01-\x08\x0e-\x1b{_BREAKS}\x7f\xad\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"
)
_TAGS = "\U000e0001-\U000e007f"
_HAS_RTL = re.compile(f"[{_RTL}]")
_INVISIBLE = re.compile(
    # Joiners shape Arabic, Indic and emoji sequences; tags stand in flags only.
    f"[{_NEVER_SEEN}]|(?<![{_JOINING}{_EMOJI}])[\u200c\u200d]|(?<![\U0001f3f4{_TAGS}])[{_TAGS}]+"
)
_INVISIBLE_OR_DIRECTION = re.compile(f"{_INVISIBLE.pattern}|[{_DIRECTIONS}]")
_BREAK = re.compile(f"[{_BREAKS}]")

_CONTROL_TOKEN = re.compile(r"<(?=[|｜][^\s<>|｜][^\n<>|｜]{0,62}[|｜]>)")
_END_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<｜end▁of▁sentence｜>",
)
_PLACEHOLDER = re.compile(r"\{(?=\{ROUND[01]\}\})")
_ANY_PLACEHOLDER = re.compile(r"\{(?=\{(?:SYSTEM|QUERY|RESPONSE|ROUND[01])\}\})")

_AS_1252 = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(
    # Two UTF-8 bytes as Latin-1 or Windows-1252, Chinese as three of them, UTF-8 read as GBK, and
    # what GBK makes of the replacement character and of uninitialised memory.
    f"[ÂÃ][\x80-\xbf]|â€|[\x80-\x84\x86-\x9f]|(?:[ã-ï][{_AS_1252}]{{2}}){{2}}|[ä-é][¡-ª¬-º¼-¿]{{2}}"
    "|[锛銆鈥]|锟斤拷|烫烫烫|屯屯屯"
)

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
_GAP = re.compile(f"(?<=[{_CJK}]) +(?=[{_CJK}])")
_CJK_CHARACTER = re.compile(f"[{_CJK}]")
_SPACED = 0.3
"""Gaps a Chinese character from which on a row counts as cut into words; LCCC has about 0.6."""

_SORRY = r"(?:非常|十分|很|真)?(?:抱歉|对不起|不好意思)[，,。！! ]*(?:但是?)?"
_REFUSED = r"(?:回答|提供|协助|帮助|帮到|满足|完成|处理|讨论|生成|参与|继续)"
_BOILERPLATE = re.compile(
    rf"(?:{_SORRY})?(?:作为|我(?:只|仅仅)?是)(?:一(?:个|名|款))?(?:AI|人工智能|大?语言模型|大模型)"
    rf"|(?:{_SORRY})?我(?:无法|不能|没办法|没有办法|没法|不便)(?:为|给|向|对|帮|就)?[^，。！？,.]{{0,8}}{_REFUSED}"
    r"|(?:(?:i'm|i am|we're) (?:very |so |really )?sorry|sorry|i apologi[sz]e)?[,.;]? ?(?:but )?"
    r"(?:as an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|i(?:'m| am) (?:just |only )?an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|i(?: can(?:not|'t)| am unable to|'m unable to|'m not able to| am not able to| won't)"
    r" (?:assist|help|provide|fulfil|comply|answer|discuss|generate|create|continue|do that)\b)",
    re.IGNORECASE,
)
_SAYS_NO_MORE = 240
"""Characters up to which an answer that begins with boilerplate is taken to say nothing else."""


def mended(text: str, role: Role, where: str, notes: Notes) -> str:
    """The text as it is trained on: stripped, and mended as the rules say.

    Mending a mended text changes nothing. RowError: what is in it is rejected.
    """
    stripped = text.strip()
    if _UNUSUAL.search(stripped) or not stripped.replace("\n", " ").isprintable():
        before, seen = None, notes
        while before != stripped:
            # What is kept is what the last look finds: mending one thing may do away with another.
            before, seen = stripped, Notes(notes.policy, notes.changes)
            stripped = _once(before, role, where, seen)
        notes.findings |= seen.findings
    # Each other change is noted where it is made.
    if len(stripped) != len(text) and (text[:1].isspace() or text[-1:].isspace()):
        notes.changes.add("whitespace_stripped")
    return stripped


def _once(text: str, role: Role, where: str, notes: Notes) -> str:
    printable = text.replace("\n", " ").isprintable()
    if (not printable or "\ufffd" in text) and (found := _INVALID.search(text)):
        raise RowError("invalid_characters", f"{where} has U+{ord(found.group()):04X}")
    if not printable:
        text = _visible(text, where, notes).strip()
    text = _without_end(text, role, notes)
    if not text.isascii() and _FOREIGN.search(text) and (found := _MOJIBAKE.search(text)):
        notes.found("mojibake", f"{where} has {text[found.start() : found.start() + 12]!r}")
    text = private.checked(text, where, notes)
    if "<" in text and (found := _CONTROL_TOKEN.search(text)):
        token = text[found.start() : found.start() + 24]
        if notes.found("control_tokens", f"{where} has {token}") == "neutralise":
            notes.changes.add("control_tokens_neutralised")
            text = _CONTROL_TOKEN.sub("< ", text)
    if "{{" in text:
        text = _without_placeholders(text, role, where, notes)
    return text


def _visible(text: str, where: str, notes: Notes) -> str:
    pattern = _INVISIBLE if _HAS_RTL.search(text) else _INVISIBLE_OR_DIRECTION
    found = pattern.search(text)
    if found is None:
        return text
    detail = f"{where} has U+{ord(found.group()[0]):04X}"
    if notes.found("invisible_characters", detail) != "strip":
        return text
    notes.changes.add("invisible_stripped")
    return pattern.sub(lambda match: "\n" if _BREAK.match(match.group()) else "", text)


def _without_end(text: str, role: Role, notes: Notes) -> str:
    """The text without the end tokens that its author put at its end, as the template does."""
    if role == "tool_call" or not text.endswith(_END_TOKENS):
        return text
    while text.endswith(_END_TOKENS):
        text = text[: text.rindex("<")].rstrip()
    notes.changes.add("end_token_dropped")
    return text


def _without_placeholders(text: str, role: Role, where: str, notes: Notes) -> str:
    """ms-swift fills its template's placeholders in what is not an answer.

    In a question only the two that it fills after the question itself, in a tool's response all of
    them (swift/template/base.py: _concat_context_list).
    """
    if role in ("assistant", "tool_call"):
        return text
    pattern = _ANY_PLACEHOLDER if role == "tool_response" else _PLACEHOLDER
    found = pattern.search(text)
    if found is None:
        return text
    shown = text[found.start() : found.start() + 12]
    if notes.found("placeholder", f"{where} has {shown}") == "neutralise":
        notes.changes.add("placeholders_neutralised")
        text = pattern.sub("{ ", text)
    return text


def is_boilerplate(answer: str) -> bool:
    """Whether an answer (without its think block) says no more than a refusal or `as an AI`."""
    return len(answer) <= _SAYS_NO_MORE and _BOILERPLATE.match(answer) is not None


def is_spaced(texts: Sequence[str]) -> bool:
    """Whether the Chinese in the texts is cut into words by spaces."""
    spaced = [text for text in texts if " " in text and not text.isascii()]
    gaps = sum(len(_GAP.findall(text)) for text in spaced)
    if gaps < 2:
        return False
    characters = sum(len(_CJK_CHARACTER.findall(text)) for text in texts if not text.isascii())
    return gaps >= characters * _SPACED


def joined(text: str) -> str:
    """The text without the spaces between Chinese characters."""
    return _GAP.sub("", text)
