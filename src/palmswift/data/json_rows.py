"""Rows of JSONL and JSON arrays; a broken row costs that row and the reading goes on."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from palmswift.data.row import Place, Rejection, RowError, SourceRow

_DEEPEST = 64
"""Levels of nesting in a row; what is deeper is no training row and could exhaust the stack."""

_SPACE = re.compile(r"[\s,]*")
_FIRST_KEY = re.compile(r'\{\s*"((?:[^"\\\n]|\\.)*)"\s*:')
_OPENING = re.compile(r"\s*\[")
_WRAPPER = re.compile(r'\s*\{\s*"(data|rows|items|examples|records|train)"\s*:\s*\[')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RowError("duplicate_key", f"`{twice}` stands twice")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise RowError("broken_json", f"{name} is not JSON")


_ROW = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_ANY = json.JSONDecoder()


def parse_row(text: str, place: Place) -> SourceRow | Rejection:
    """The row that a piece of JSON text is, or why it is none."""
    try:
        if text.count("[") + text.count("{") > _DEEPEST and _depth(text) > _DEEPEST:
            raise RowError("broken_json", f"nested deeper than {_DEEPEST} levels")
        value = _ROW.decode(text)
        if not isinstance(value, dict):
            raise RowError("not_an_object", f"it is {_kind(value)}")
    except RowError as error:
        return Rejection(place, error.code, error.detail, text)
    except json.JSONDecodeError as error:
        problem = RowError("broken_json", f"{error.msg} at character {error.pos + 1}")
        return Rejection(place, problem.code, problem.detail, text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits
        problem = RowError("broken_json", str(error))
        return Rejection(place, problem.code, problem.detail, text)
    return SourceRow(place, value)


def _depth(text: str) -> int:
    """The deepest nesting of brackets outside strings."""
    deepest = level = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        if token.group() in "[{":
            level += 1
            deepest = max(deepest, level)
        elif token.group() in "]}":
            level -= 1
    return deepest


def _kind(value: Any) -> str:
    names = {type(None): "null", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "a number")


def lines(
    text: str, source: str, first_line: int = 1, first_number: int = 1
) -> Iterator[SourceRow | Rejection]:
    """The rows of JSONL text, one a line; blank lines are passed over."""
    number = first_number
    for line_number, line in enumerate(text.split("\n"), first_line):
        if line.strip():
            yield parse_row(line.strip(), Place(source, line_number, number))
            number += 1


def array(text: str, source: str) -> Iterator[SourceRow | Rejection]:
    """The rows of a JSON array; also of an object that wraps one (`{"data": [...]}`).

    Objects that follow each other without an array are read too. After a broken element the
    reading goes on where the next one seems to begin; lines after the end are read as JSONL.
    """
    wrapper = _WRAPPER.match(text)
    opening = wrapper or _OPENING.match(text)
    position = opening.end() if opening else 0
    first_keys: set[str] = set()
    line, counted = 1, 0
    for number in itertools.count(1):
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]  # may be empty
        line += text.count("\n", counted, position)
        counted = position
        if position >= len(text):
            return
        if text[position] == "]":
            rest = text[position + 1 :]
            if not wrapper or not is_whole(f'{{"rows": 0{rest}'):
                yield from lines(rest, source, line, number)
            return
        end = _element_end(text, position, first_keys)
        yield parse_row(text[position:end].rstrip(" \t\r\n,"), Place(source, line, number))
        position = end


def _element_end(text: str, start: int, first_keys: set[str]) -> int:
    """Where the element at `start` ends, or where the next begins if this one is broken.

    The next element is known by its first key: rows of one file mostly begin alike, and the
    objects inside a row do not begin as rows do.
    """
    key = _FIRST_KEY.match(text, start)
    try:
        _, end = _ANY.raw_decode(text, start)
    except (ValueError, RecursionError):
        known = first_keys | ({key.group(1)} if key else set())
        names = "|".join(re.escape(name) for name in sorted(known)) or '[^"]*'
        following = re.compile(rf'(?<=[\s,])\{{\s*"(?:{names})"\s*:').search(text, start + 1)
        return following.start() if following else len(text)
    if key:
        first_keys.add(key.group(1))
    return end


def is_whole(text: str) -> bool:
    """Whether the text is one complete JSON value."""
    try:
        _ANY.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def wraps_array(text: str) -> bool:
    """Whether the text is one object that holds the rows in a list (`{"data": [...]}`)."""
    return _WRAPPER.match(text) is not None
