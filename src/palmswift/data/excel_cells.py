"""What a cell of a workbook shows: 7 in the format 000 is the text 007."""

from __future__ import annotations

import datetime
import re
from typing import Any

_LITERAL = re.compile(r'"([^"]*)"|\\(.)|_.|\*.|\[[^\]]*\]')
_NUMBER = re.compile(r"(?P<before>[^#0?.,%]*)(?P<whole>[#0?,]+)(?P<part>\.0+)?(?P<after>[^#0?.,]*)")
_DATE_PART = re.compile(r'"[^"]*"|\\.|AM/PM|am/pm|y+|m+|d+|h+|s+|\[[^\]]*\]|[^"\\]')
_REGIONAL_DATE = "mm-dd-yy"
"""The format that Excel shows as the reader's country writes dates."""


def shown(value: Any, number_format: str) -> str:
    """The text of a cell's value; of an error value too, which begins with `#`."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _number(value, number_format)
    if isinstance(value, datetime.timedelta):
        minutes, seconds = divmod(round(value.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if isinstance(value, datetime.date | datetime.time):
        return _date(value, number_format)
    return str(value)


def _number(value: float, number_format: str) -> str:
    sections = number_format.split(";")
    section = sections[1] if value < 0 and len(sections) > 1 else sections[0]
    pattern = _LITERAL.sub(lambda found: found.group(1) or found.group(2) or "", section)
    form = _NUMBER.fullmatch(pattern)
    if form is None or "0" not in form["whole"]:
        return format(value, ".15g") if isinstance(value, float) else str(value)
    number = abs(value) if len(sections) > 1 else value
    percent = form["after"].count("%")
    decimals = len(form["part"] or ".") - 1
    width = form["whole"].count("0") + (decimals + 1 if decimals else 0)
    comma = "," if "," in form["whole"] else ""
    digits = f"{number * 100**percent:0{0 if comma else width + (number < 0)}{comma}.{decimals}f}"
    return f"{form['before']}{digits}{form['after']}".strip()


def _date(value: datetime.date | datetime.time, number_format: str) -> str:
    section = number_format.split(";")[0]
    parts = _DATE_PART.findall(section)
    known = any(part[0] in "ymdhs" for part in parts)
    if not known or section == _REGIONAL_DATE:
        return _iso(value)
    half_day = any(part.upper() == "AM/PM" for part in parts)
    texts = []
    last = ""
    for index, part in enumerate(parts):
        following = next((other for other in parts[index + 1 :] if other[0] in "ymdhs"), "")
        minutes = part[0] == "m" and len(part) < 3 and (last == "h" or following[:1] == "s")
        texts.append(_date_part(value, part, minutes, half_day))
        last = part[0] if part[0] in "ymdhs" else last
    return "".join(texts).strip()


def _date_part(
    value: datetime.date | datetime.time, part: str, minutes: bool, half_day: bool
) -> str:
    if part[0] in '"\\':
        return part.strip('"\\')
    if part[0] == "[":
        return ""
    code = _CODES.get("M" * len(part) if minutes else part)
    if part.upper() == "AM/PM":
        code = "%p"
    if half_day and part in ("h", "hh"):
        code = "%I"
    if code is None:
        return part if part[0] not in "ymdhs" else ""
    text = value.strftime(code)
    short = len(part) == 1 and part in "mdhs"
    return (text.lstrip("0") or "0") if short else text


_CODES = {
    "yy": "%y",
    "yyyy": "%Y",
    "m": "%m",
    "mm": "%m",
    "mmm": "%b",
    "mmmm": "%B",
    "M": "%M",
    "MM": "%M",
    "d": "%d",
    "dd": "%d",
    "ddd": "%a",
    "dddd": "%A",
    "h": "%H",
    "hh": "%H",
    "s": "%S",
    "ss": "%S",
}


def _iso(value: datetime.date | datetime.time) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ").removesuffix(" 00:00:00")
    return value.isoformat()
