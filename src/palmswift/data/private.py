"""Numbers, addresses and secrets of people in the text: found, and masked if the rules say so.

Landlines and service numbers (010-…, 400-…, 95588) belong to businesses and are not looked for.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import NamedTuple

from palmswift.data.policy import Notes

_MASKS = {
    "secret": ("[密钥]", "[secret]"),
    "email": ("[邮箱]", "[email]"),
    "id_number": ("[身份证号]", "[ID number]"),
    "bank_card": ("[银行卡号]", "[bank card]"),
    "phone_number": ("[手机号]", "[phone]"),
}
"""What stands in the place of each kind, in a Chinese and in any other text."""

_CHINESE = re.compile("[\u4e00-\u9fff]")
_DIGIT = re.compile("[0-9]")
_AS_DIGITS = bytes(48 if chr(byte) in string.digits else 32 for byte in range(256))
_MANY_DIGITS = b"0" * 11
"""What a telephone, card or identity number has at least, spaces and dashes left out."""

_PHONE = re.compile(
    r"(?<![0-9A-Za-z_.+-])(?:\+?86[ -]?)?1[3-9][0-9]([ -]?)[0-9]{4}\1[0-9]{4}"
    r"(?![0-9A-Za-z_])(?!\.[0-9])"
)
_ID = re.compile(
    r"(?<![0-9A-Za-z_.])[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])"
    r"(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx](?![0-9A-Za-z_])"
)
_CARD = re.compile(
    r"(?<![0-9A-Za-z_.-])(?:62|4[0-9]|5[1-5]|2[2-7]|35|60|65|3[47])"
    r"[0-9](?:[ -]?[0-9]){12,16}(?![0-9A-Za-z_-])"
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_KEYS = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"sk-[A-Za-z0-9_-]{20,200}"  # OpenAI and those that follow it, Anthropic among them
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|LTAI[A-Za-z0-9]{12,30}|AKID[A-Za-z0-9]{13,40}"
    r"|AIza[0-9A-Za-z_-]{35}|xox[abprs]-[A-Za-z0-9-]{10,250}|hf_[A-Za-z0-9]{30,64}"
    r"|eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{16,2000}"  # JWT
    r")(?![A-Za-z0-9])"
)
_KEY_CHARACTERS = string.ascii_letters + string.digits + "_-"
_IN_KEYS = bytes(48 if chr(byte) in _KEY_CHARACTERS else 32 for byte in range(256))
_LONG_WORD = b"0" * 16
"""What the shortest key is: prose has no words of that length."""
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.{0,10000}?-----END [A-Z ]{0,30}PRIVATE KEY-----",
    re.DOTALL,
)
_PASSWORD = re.compile(
    r"(?:password|passwd|pwd|api[_ -]?key|secret[_ -]?key|access[_ -]?token|密码|口令)"
    r"[\"']?\s{0,3}(?:[:=：]|是|为|is)\s{0,3}[\"']?"
    r"(?=[!-~]{0,63}[0-9])(?!https?:)([!#-&(-+\--:<-~]{6,64})",
    re.IGNORECASE,
)
_PASSWORD_WORDS = "passw pwd api secret access 密码 口令".encode().split()
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_DIGITS = "10X98765432"


class Found(NamedTuple):
    """Something private in a text."""

    code: str
    start: int
    end: int


def find(text: str) -> Iterator[Found]:
    """What is private in a text; the same digits are found as one thing only."""
    if "@" in text:
        yield from _spans("email", _EMAIL, text)
    if "PRIVATE KEY" in text:
        yield from _spans("secret", _PRIVATE_KEY, text)
    if _DIGIT.search(text) is None:
        return
    # Looking at the bytes first is ten times faster than the expressions on texts without secrets.
    data = text.encode("utf-8", "surrogatepass")
    if _LONG_WORD in data.translate(_IN_KEYS):
        for match in _KEYS.finditer(text):
            if _DIGIT.search(match.group()):
                yield Found("secret", match.start(), match.end())
    lowered = data.lower()
    if any(word in lowered for word in _PASSWORD_WORDS):
        for match in _PASSWORD.finditer(text):
            yield Found("secret", match.start(1), match.end(1))
    if _MANY_DIGITS not in data.translate(_AS_DIGITS, b" -"):
        return
    for match in _ID.finditer(text):
        if is_id_number(match.group()):
            yield Found("id_number", match.start(), match.end())
    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match.group())
        if _is_card(digits) and not is_id_number(digits):
            yield Found("bank_card", match.start(), match.end())
    yield from _spans("phone_number", _PHONE, text)


def checked(text: str, where: str, notes: Notes) -> str:
    """The text with what the rules mask; what they keep becomes a finding, the rest RowError."""
    mask = []
    for found in find(text):
        shown = text[found.start : found.start + 3]
        if notes.found(found.code, f"{where}: {shown}…") == "mask":
            mask.append(found)
    if not mask:
        return text
    notes.changes.add("private_masked")
    language = 0 if _CHINESE.search(text) else 1
    parts, position = [], 0
    for found in sorted(mask, key=lambda item: (item.start, -item.end)):
        if found.start >= position:
            parts += [text[position : found.start], _MASKS[found.code][language]]
            position = found.end
    return "".join([*parts, text[position:]])


def is_id_number(text: str) -> bool:
    """Whether a mainland identity number's check digit is right (GB 11643, ISO 7064 mod 11-2)."""
    if len(text) != 18 or not text[:17].isdigit():
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, text[:17], strict=True))
    return _CHECK_DIGITS[total % 11] == text[17].upper()


def _is_card(digits: str) -> bool:
    """Whether the digits are as long as a card number and pass Luhn's check."""
    if not 15 <= len(digits) <= 19 or (len(digits) == 15) != digits.startswith(("34", "37")):
        return False
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _spans(code: str, pattern: re.Pattern[str], text: str) -> Iterator[Found]:
    return (Found(code, match.start(), match.end()) for match in pattern.finditer(text))
