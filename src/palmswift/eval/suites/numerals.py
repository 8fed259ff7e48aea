"""The numbers in a text: digits, Chinese numerals and English number words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
    "壹": 1,
    "贰": 2,
}
_DIGITS |= {c: n for n, c in enumerate("叁肆伍陆柒捌玖", start=3)}
_UNITS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_GROUPS = {"万": 10**4, "亿": 10**8}
_SCALES = {**_GROUPS, "千": 10**3, "百": 10**2, "thousand": 10**3, "million": 10**6}
_SCALES |= {"billion": 10**9}
_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_SIMPLE = {word: n for n, word in enumerate(_SMALL)}
_ROUND = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TENS = {word: 10 * n for n, word in enumerate(_ROUND, start=2)}
_ENGLISH = "|".join([*_TENS, *sorted(_SIMPLE, key=len, reverse=True), "hundred", *_SCALES])
_NUMERAL = "".join([*_DIGITS, *_UNITS, *_GROUPS])

# Words that are written with numerals and count nothing.
_IDIOMS = re.compile(
    f"十分(?![钟之米])|万分(?!之)|(?<![{_NUMERAL}0-9])千万(?![{_NUMERAL}元人年])|万一|一一|千方百计"
    "|成千上万|一五一十|一清二楚|四面八方|五花八门|七上八下|乱七八糟|三三两两|一心一意|独一无二"
)
_FOUND = re.compile(
    rf"""
    (?P<fraction>(?<![\d./])\d+/[1-9]\d*(?![\d/]))
  | (?P<sign>(?<![\w)\]])[-−])?
    (?P<digits>\d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][-+]?\d{{1,3}}(?!\w))?)
    (?:\s*(?P<scale>万亿|[万亿千百](?!分)|thousand|million|billion))?
    (?P<percent>\s*(?:%|percent\b|‰))?
  | (?P<parts>[{_NUMERAL}]+)分之(?P<of>[{_NUMERAL}]+(?:点[{_NUMERAL}]+)?)
  | (?P<minus>负)?(?P<chinese>[{_NUMERAL}]+(?:点[{"".join(_DIGITS)}]+)?)(?P<half>半)?
  | \b(?P<english>(?:(?:{_ENGLISH})(?:[\s-]+(?:and\s+)?(?=(?:{_ENGLISH})\b))?)+)\b
    (?P<cent>\s+percent\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\s*[个元块岁天年月日号点钟人次只本斤克吨米公里小时分秒倍度位条张片盒瓶粒袋份%。.]"
)


class FoundNumber(NamedTuple):
    """A number in a text, and what it can mean."""

    text: str
    values: tuple[float, ...]
    """75% is 75 and 0.75."""


def numbers_in(text: str) -> list[FoundNumber]:
    """The numbers of a text in their order.

    A single Chinese numeral, and the word one, is mostly no number (一下, no one): it counts when
    the text has no digits, and something is counted with it (三个) or it is all there is.
    """
    plain = _IDIOMS.sub(" ", unicodedata.normalize("NFKC", text).replace("⁄", "/"))
    alone = re.sub(r"[\W_]+", "", plain)
    has_digits = any(character.isdigit() for character in plain if character not in _NUMERAL)
    return [
        FoundNumber(found.text, found.values)
        for found in _found(plain)
        if not found.weak
        or found.text == alone
        or (not has_digits and _COUNTED.match(plain, found.end))
    ]


class _Found(NamedTuple):
    text: str
    values: tuple[float, ...]
    weak: bool
    end: int


def _found(text: str) -> Iterator[_Found]:
    for match in _FOUND.finditer(text):
        read = _values(match)
        if read is None:
            continue
        word = match["chinese"] or match["english"] or ""
        weak = (len(word) == 1 and not match["half"]) or word.lower() in ("one", "zero")
        yield _Found(match.group().strip(), read, weak, match.end())


def _values(match: re.Match[str]) -> tuple[float, ...] | None:
    if match["fraction"]:
        above, below = match["fraction"].split("/")
        return (int(above) / int(below),)
    if match["digits"]:
        value = float(match["digits"].replace(",", ""))
        for unit in _scale_parts(match["scale"]):
            value *= _SCALES[unit]
        value = -value if match["sign"] else value
        if match["percent"]:
            return (value, value / (1000 if "‰" in match["percent"] else 100))
        return (value,)
    if match["parts"]:
        below, above = chinese_number(match["parts"]), chinese_number(match["of"])
        if not below or above is None:
            return None
        return (above / below, above) if below == 100 else (above / below,)
    if match["chinese"]:
        value_or_none = chinese_number(match["chinese"])
        if value_or_none is None:
            return None
        value = value_or_none + (0.5 if match["half"] else 0)
        return (-value if match["minus"] else value,)
    value = _english(match["english"])
    return (value, value / 100) if match["cent"] else (value,)


def _scale_parts(scale: str | None) -> list[str]:
    if not scale:
        return []
    return [scale.lower()] if scale.isascii() else list(scale)


def chinese_number(text: str) -> float | None:
    """The value of a Chinese numeral (一千零八十, 两万五, 二〇二四, 三点一四); None: not one."""
    whole, _, decimals = text.partition("点")
    if whole and all(character in _DIGITS for character in whole):
        value: float = int("".join(str(_DIGITS[character]) for character in whole))
    else:
        found = _grouped(whole)
        if found is None:
            return None
        value = found
    if decimals:
        value += float("0." + "".join(str(_DIGITS[character]) for character in decimals))
    return float(value)


def _grouped(text: str) -> int | None:
    """The value of a numeral with 万 and 亿 in it."""
    for group in ("亿", "万"):
        if group in text:
            before, _, after = text.rpartition(group)
            high = _grouped(before)
            if high is None:
                return None
            if len(after) == 1 and after in _DIGITS:  # 两万五 is 25000
                return high * _GROUPS[group] + _DIGITS[after] * _GROUPS[group] // 10
            low = 0 if not after else _grouped(after)
            return None if low is None else high * _GROUPS[group] + low
    return _section(text)


def _section(text: str) -> int | None:
    """The value of a numeral below 万."""
    total, digit, unit = 0, None, 10_000
    for character in text:
        if character in _DIGITS:
            if digit not in (None, 0):
                return None
            digit = _DIGITS[character]
            unit = 10 if digit == 0 else unit
            continue
        step = _UNITS[character]
        total += (1 if digit is None else digit) * step
        digit, unit = None, step
    if digit is None:
        return total if text else None
    # 一百二 is 120, but 一百零二 is 102 and 十二 is 12
    return total + digit * (unit // 10 if 100 <= unit < 10_000 else 1)


def _english(text: str) -> float:
    total, current = 0, 0
    for word in re.split(r"[\s-]+", text.lower()):
        if word in _SIMPLE or word in _TENS:
            current += _SIMPLE.get(word, 0) + _TENS.get(word, 0)
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word in _SCALES:
            total, current = total + max(current, 1) * _SCALES[word], 0
    return float(total + current)
