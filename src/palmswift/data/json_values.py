"""One JSON value to a row: strict where JSON is strict, and a word on what is wrong."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NamedTuple

from palmswift.data.row import Place, Rejection, RowError, SourceRow, printable

Row = SourceRow | Rejection

_DEEPEST = 64
"""Levels of nesting in a row; what is deeper is no training row and could exhaust the stack."""

_LITERAL = 16
"""Characters from the end within which text that was cut can look broken: `-Infin`, `\\u12`."""

_NO_END = "a string has no end: it begins"

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)

_TURN_KEYS = {"role", "from", "speaker", "human", "user", "assistant", "gpt"}
"""An object with one of these is a turn of a dialogue, not a row."""


class Broken(Exception):
    """The text is no JSON; `at` is where in it that shows."""

    def __init__(self, detail: str, at: int) -> None:
        super().__init__(detail, at)
        self.detail = detail
        self.at = at


class Incomplete(Broken):
    """The text may be the beginning of a value that goes on after its end."""


class Parsed(NamedTuple):
    """A value, where it ends, and the flaw that JSON's grammar lets pass."""

    value: Any
    end: int
    flaw: RowError | None


class Parser:
    """Python's own JSON scanner, which notes duplicate keys, NaN and numbers without end."""

    def __init__(self) -> None:
        self._flaw: RowError | None = None
        self._strict = self._decoder(strict=True)
        self._lenient = self._decoder(strict=False)

    def _decoder(self, *, strict: bool) -> json.JSONDecoder:
        return json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_float=self._float,
            strict=strict,
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs) and self._flaw is None:
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self._flaw = RowError("duplicate_key", f"`{twice}` stands twice")
        return fields

    def _constant(self, name: str) -> None:
        self._flaw = self._flaw or RowError("broken_json", f"{name} is not JSON")

    def _float(self, digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            self._constant(digits)
        return number

    def at(self, text: str, start: int) -> Parsed:
        """The value that begins at `start`. Line breaks and tabs may stand raw in its strings.

        Raises `Incomplete` when the text ends before the value does, and `Broken`.
        """
        self._flaw = None
        try:
            value, end = self._strict.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if not _raw_space(text, error):
                raise _judged(text, error) from None
            value, end = self._with_raw_space(text, start)
        except (ValueError, RecursionError) as error:  # a number of thousands of digits
            raise Broken(str(error), start) from None
        return Parsed(value, end, self._flaw or _too_deep(text, start, end))

    def _with_raw_space(self, text: str, start: int) -> tuple[Any, int]:
        self._flaw = None
        try:
            value, end = self._lenient.raw_decode(text, start)
        except json.JSONDecodeError as error:
            raise _judged(text, error) from None
        except (ValueError, RecursionError) as error:
            raise Broken(str(error), start) from None
        if control := _FORBIDDEN.search(text, start, end):
            detail = f"a control character U+{ord(control.group()):04X} stands in a string"
            raise Broken(detail, control.start())
        return value, end

    def whole(self, text: str) -> Parsed | None:
        """The value that the text is; None when it is anything else than one value."""
        try:
            parsed = self.at(text, 0)
        except Broken:
            return None
        return parsed if parsed.end == len(text) else None


def _raw_space(text: str, error: json.JSONDecodeError) -> bool:
    return error.msg.startswith("Invalid control character") and text[error.pos] in "\n\r\t"


def _judged(text: str, error: json.JSONDecodeError) -> Broken:
    if error.msg.startswith("Unterminated string"):
        return Incomplete(_NO_END, error.pos)
    kind = Incomplete if error.pos >= len(text) - _LITERAL else Broken
    return kind(error.msg, error.pos)


def _too_deep(text: str, start: int, end: int) -> RowError | None:
    if text.count("[", start, end) + text.count("{", start, end) <= _DEEPEST:
        return None
    deepest = level = 0
    for token in _TOKEN.finditer(text, start, end):
        if token.group() in ("[", "{"):
            level += 1
            deepest = max(deepest, level)
        elif token.group() in ("]", "}"):
            level -= 1
    if deepest <= _DEEPEST:
        return None
    return RowError("broken_json", f"nested deeper than {_DEEPEST} levels")


def as_row(parsed: Parsed, place: Place, text: str) -> Row:
    """The row that a value is: an object, a list (of turns) or a text; `text` is how it stood."""
    if parsed.flaw:
        return Rejection(place, parsed.flaw.code, parsed.flaw.detail, text)
    if isinstance(parsed.value, dict | list | str):
        return SourceRow(place, parsed.value)
    kind = {type(None): "null", bool: "true or false"}.get(type(parsed.value), "a number")
    return Rejection(place, "not_an_object", f"it is {kind}", text)


def holds_rows(value: Any) -> bool:
    """Whether a list holds rows, rather than being one: objects that are no turns."""
    return _are_objects(value) and not any(_TURN_KEYS & item.keys() for item in value)


def is_dialogue(value: Any) -> bool:
    """Whether a list is a row: objects that are the turns of a dialogue."""
    return _are_objects(value) and all(_TURN_KEYS & item.keys() for item in value)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) for x in value)


def breaks_off(text: str, error: Broken) -> bool:
    """Whether all of the text is the beginning of a value."""
    return error.at >= len(text) or error.detail == _NO_END


def broken(place: Place, text: str, error: Broken, start: int = 0) -> Rejection:
    """The rejection of a text that is not JSON, with what to do where that is known.

    `start` is where it began in the text that the parser saw.
    """
    detail = f"{error.detail} at character {error.at - start + 1}"
    if error.at - start >= len(text):
        detail = "it breaks off before its end"
    first = text.lstrip()
    if first.startswith(("#", "//", "/*")):
        detail = "a comment is not JSON"
    elif first.startswith(("{'", "['")):
        detail += ": single quotes are Python's notation, json.dumps writes JSON"
    return Rejection(place, "broken_json", printable(detail), text)
