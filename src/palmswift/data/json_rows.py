"""Rows of JSON that stand one a line (JSONL, also inside an array); a broken line costs itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

from palmswift.data.json_values import (
    Broken,
    Parsed,
    Parser,
    Row,
    as_row,
    breaks_off,
    broken,
    holds_rows,
)
from palmswift.data.lines import Line, Lines, too_large
from palmswift.data.row import Place, SourceRow

_FARTHEST = 1000
"""Lines that one row may be torn over by line breaks in its text."""

_LONGEST_TORN = 1 << 20
_MOST_TRIES = 100

_BLANK = " \t\r\n\ufeff"
_PUNCTUATION = ("[", "]", "],")
_SPACE = re.compile(r"[\s,\ufeff]*")
_BEGINS_ROW = re.compile(r"\[?\s?\{")


def rows(lines: Lines, source: str) -> Iterator[Row]:
    """The rows, one a line; blank lines and an array's own brackets are passed over.

    Read all the same: rows with a comma or an array's bracket beside them, several on one line,
    and those with line breaks or tabs that stand raw in their texts.
    """
    parser = Parser()
    number = 1
    for line in lines:
        text = line.text.strip(_BLANK)
        if not text or text in _PUNCTUATION:
            continue
        place = Place(source, line.number, number)
        for row in _rows_of(parser, place, text, line, lines):
            yield row
            number += 1


def _rows_of(parser: Parser, place: Place, text: str, line: Line, lines: Lines) -> Iterator[Row]:
    if not line.whole:
        yield too_large(place, text)
        return
    try:
        parsed = parser.at(text, 0)
        if parsed.end < len(text):
            raise Broken("there is more after the value", parsed.end)
    except Broken as error:
        if several := _sequence(parser, text):
            for number, (value, part) in enumerate(several, place.number):
                yield as_row(value, place._replace(number=number), part)
        elif joined := _joined(parser, line, lines, error):
            yield as_row(joined[0], place, joined[1])
        else:
            yield broken(place, text, error)
        return
    if parsed.flaw or not holds_rows(parsed.value):
        yield as_row(parsed, place, text)
        return
    for number, value in enumerate(parsed.value, place.number):
        yield SourceRow(place._replace(number=number), value)


def _sequence(parser: Parser, text: str) -> list[tuple[Parsed, str]] | None:
    """The objects or lists that a line is made of, apart from a bracket of the array around it."""
    core = text.removesuffix(",").rstrip()
    for candidate in (core, core.removeprefix("["), core.removesuffix("]")):
        found = []
        position = _end_of_space(candidate, 0)
        try:
            while position < len(candidate):
                parsed = parser.at(candidate, position)
                found.append((parsed, candidate[position : parsed.end]))
                position = _end_of_space(candidate, parsed.end)
        except Broken:
            continue
        values = [parsed.value for parsed, _ in found]
        alone = len(values) == 1 and isinstance(values[0], dict)
        if alone or holds_rows(values) or all(isinstance(value, list) for value in values):
            return found
    return None


def _end_of_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _joined(parser: Parser, first: Line, lines: Lines, error: Broken) -> tuple[Parsed, str] | None:
    """The object that begins on a line and ends on a later one; else the lines are given back."""
    text = first.text.strip(_BLANK)
    if not text.startswith("{") or not breaks_off(text, error):
        return None
    taken: list[Line] = []
    pieces = [text]
    size = len(text)
    tries = 0
    for line in lines:
        taken.append(line)
        size += len(line.text)
        if not line.whole or size > _LONGEST_TORN or len(taken) > _FARTHEST:
            break
        if _BEGINS_ROW.match(line.text):
            break  # the next row, however this one ends
        pieces.append(line.text)
        if line.text.rstrip(_BLANK + ",").endswith("}"):
            whole = "\n".join(pieces).rstrip(_BLANK + ",")
            parsed = parser.whole(whole)
            if parsed and isinstance(parsed.value, dict):
                return parsed, whole
            tries += 1
            if tries == _MOST_TRIES:
                break
    lines.give_back(taken)
    return None
