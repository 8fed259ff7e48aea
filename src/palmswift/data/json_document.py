"""Rows of a JSON document: an array on one line or over many, objects that follow each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from palmswift.data.json_values import (
    Broken,
    Incomplete,
    Parsed,
    Parser,
    Row,
    as_row,
    broken,
    is_dialogue,
)
from palmswift.data.lines import LONGEST_ROW, too_large
from palmswift.data.row import Place, Rejection

ROW_LISTS = "data|rows|items|examples|records|samples|train"
"""The names under which an object wraps the rows."""

WRAPPER = re.compile(
    r'[\s\ufeff]*\{\s*(?:"[^"\\]*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[-+.\w]+)\s*,\s*)*'
    rf'"(?P<name>{ROW_LISTS})"\s*:\s*\[(?=\s*[{{\[\]])'
)
_SPACE = re.compile(r"[\s,\ufeff]*")
_FIRST_KEY = re.compile(r'\{\s*"((?:[^"\\\n]|\\.)*)"\s*:')
_MEMBER = re.compile(r'"([^"\\]*)"\s*:\s*')
_OPENS_ARRAY = re.compile(r'\[(?!\s*\{\s*"(?:role|from)"\s*:)(?=\s*[{\[\]])')
_ONE_DIALOGUE = re.compile(r'\[\s*\{\s*"(?:role|from)"\s*:')
_BRACKET = re.compile(r'"|[\[{]|[\]}]')
_STRING_END = re.compile(r'\\.|"', re.DOTALL)
_PIECE = 1 << 16
_LOOK_AHEAD = 1024
_SAMPLED_LINES = 50


def is_document(sample: str, *, named_lines: bool) -> bool:
    """Whether a JSON text that begins with `sample` is a document, rather than rows one a line.

    An array with its rows one a line counts as the latter. `named_lines`: its name says so.
    """
    lines = [line.rstrip() for line in sample.lstrip("\ufeff").split("\n") if line.strip()]
    while len(lines) > 1 and lines[0].startswith(("#", "//")):
        del lines[0]
    if not lines:
        return False
    first, rest = lines[0].lstrip(), lines[1:_SAMPLED_LINES]
    parsed = Parser().whole(first)
    if parsed and isinstance(parsed.value, str):
        return False
    if parsed and isinstance(parsed.value, dict):
        return not rest and WRAPPER.match(first) is not None
    if parsed and isinstance(parsed.value, list):
        if rest and rest[0].startswith("["):
            return False
        texts = all(isinstance(item, str) for item in parsed.value)
        one_row = named_lines and (texts or is_dialogue(parsed.value))
        return not one_row and not _ONE_DIALOGUE.match(first)
    if _ONE_DIALOGUE.match(sample.lstrip("\ufeff \t\r\n")):
        return "\n" in sample.strip()
    if "\n" not in sample.strip():
        texts = first.startswith('["') and named_lines
        return (first.startswith("[") and not texts) or WRAPPER.match(first) is not None
    beside = rest if first == "[" else [first.removeprefix("["), *rest]
    depth = _depth_of(rest[0]) if first == "[" and rest else 0
    return not any(_depth_of(line) == depth and _is_row(line) for line in beside)


def looks_like_json(sample: str) -> bool:
    """Whether text begins as a file of rows in JSON does."""
    first = sample.strip("\ufeff \t\r\n").split("\n", 1)[0].strip()
    return first in ("{", "[", "[{") or _is_row(first)


def _depth_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_row(line: str) -> bool:
    parsed = Parser().whole(line.strip().removesuffix(",").rstrip())
    # Empty ones stand on lines of their own in a printed document too.
    return parsed is not None and isinstance(parsed.value, dict | list) and bool(parsed.value)


def _pieces(blocks: Iterator[str]) -> Iterator[str]:
    """The text in smaller pieces: an error of Python's JSON counts the lines of all of its text."""
    for block in blocks:
        for start in range(0, len(block), _PIECE):
            yield block[start : start + _PIECE]


class Document:
    """A JSON text that is read once, element by element, with a block or a row in memory.

    Rows are the elements of arrays, of the list that one object wraps (`{"data": [...]}`), and
    values outside of arrays. After a broken element the reading goes on where the next one seems
    to begin.
    """

    def __init__(self, blocks: Iterator[str], source: str, notes: list[str]) -> None:
        """`notes` gets a sentence on what is left out."""
        self._notes = notes
        self._blocks = _pieces(blocks)
        self._source = source
        self._parser = Parser()
        self._text = ""
        self._at = 0
        self._line = 1
        self._counted = 0
        self._ended = False
        self._indent: str | None = ""
        self._first_keys: set[str] = set()

    def rows(self) -> Iterator[Row]:
        """The rows; a list outside of an array is one row, as is an array of turns."""
        number = 1
        depth = 0
        self._more()
        self._indent = "" if "\n" in self._text else None
        wrapper = WRAPPER.match(self._text)
        if wrapper:
            self._at, depth = wrapper.end(), 1
            self._indent = None
        elif self._skip_space() and self._here() == "[":
            depth = 0 if _ONE_DIALOGUE.match(self._text, self._at) else self._enter()
        while self._skip_space():
            if self._here() == "]":
                self._at += 1
                depth = max(depth - 1, 0)
                if wrapper and depth == 0:
                    self._pass_members()
                    wrapper = None
            elif depth == 0 and self._opens_array():
                depth = self._enter()
            else:
                yield self._element(number)
                number += 1

    def _enter(self) -> int:
        self._at += 1
        self._indent = None
        return 1

    def _here(self) -> str:
        return self._text[self._at]

    def _opens_array(self) -> bool:
        while not self._ended and len(self._text) - self._at < _LOOK_AHEAD:
            self._more()
        return _OPENS_ARRAY.match(self._text, self._at) is not None

    def _more(self) -> None:
        """Read on: what is still needed at least doubles, what is done with is let go."""
        self._count_lines(self._at)
        kept = self._text[self._at :]
        pieces, size = [kept], 0
        while not self._ended and size <= min(len(kept), LONGEST_ROW - len(kept)):
            block = next(self._blocks, None)
            self._ended = block is None
            pieces.append(block or "")
            size += len(block or "")
        self._text = "".join(pieces)
        self._at = self._counted = 0

    def _count_lines(self, position: int) -> None:
        self._line += self._text.count("\n", self._counted, position)
        self._counted = position

    def _skip_space(self) -> bool:
        """Go to the next character that is neither blank nor a comma; False at the end.

        `_indent` becomes what stands before it on its line; None when that is more than blanks.
        """
        while True:
            match = _SPACE.match(self._text, self._at)
            end = match.end() if match else self._at
            skipped = self._text[self._at : end]
            if "\n" in skipped:
                self._indent = skipped[skipped.rindex("\n") + 1 :].rstrip(",")
            elif skipped and self._indent is not None:
                self._indent += skipped
            self._at = end
            if end < len(self._text):
                return True
            if self._ended:
                return False
            self._more()

    def _element(self, number: int) -> Row:
        self._count_lines(self._at)
        place = Place(self._source, self._line, number)
        indent, self._indent = self._indent, None
        while True:
            start = self._at
            try:
                parsed = self._parser.at(self._text, start)
                self._check_end(parsed)
            except Broken as error:
                if isinstance(error, Incomplete) and not self._ended:
                    if len(self._text) - start > LONGEST_ROW:
                        head = self._text[start : start + _LOOK_AHEAD]
                        self._pass_value()
                        return too_large(place, head)
                    self._more()
                    continue
                return self._pass_broken(place, indent, error)
            return self._whole(parsed, place)

    def _check_end(self, parsed: Parsed) -> None:
        """Raises `Broken` when a text or number is a piece of an object whose brace is lost."""
        if isinstance(parsed.value, dict | list):
            return
        following = self._text[parsed.end : parsed.end + _LOOK_AHEAD].lstrip()
        if not following and not self._ended:
            raise Incomplete("the value may go on", parsed.end)
        if following and following[0] not in ",]}":
            raise Broken("it stands outside of an object", parsed.end)

    def _whole(self, parsed: Parsed, place: Place) -> Row:
        start, self._at = self._at, parsed.end
        if parsed.end - start > LONGEST_ROW:
            return too_large(place, self._text[start : parsed.end])
        key = _FIRST_KEY.match(self._text, start)
        if key and len(self._first_keys) < 20:
            self._first_keys.add(key.group(1))
        return as_row(parsed, place, self._text[start : parsed.end] if parsed.flaw else "")

    def _pass_broken(self, place: Place, indent: str | None, error: Broken) -> Rejection:
        """The rejection of the broken element here; the reading goes to where the next begins.

        On a line of its own an element ends before the next line that is not indented deeper and
        opens an object or closes the array. Else the next is known by its first key: rows of one
        file mostly begin alike, and the objects inside a row do not begin as rows do.
        """
        following = self._following(indent)
        begun, position = self._at, self._at + 1
        head = ""
        while not (found := following.search(self._text, position)) and not self._ended:
            position = max(len(self._text) - _LOOK_AHEAD, position)
            if position - self._at > LONGEST_ROW:
                head = head or self._text[self._at : self._at + _LOOK_AHEAD]
                self._at = position - 1
            position -= self._at
            self._more()
        end = found.start() if found else len(self._text)
        text = self._text[self._at : end].rstrip(" \t\r\n,")
        self._at = end
        return too_large(place, head) if head else broken(place, text, error, begun)

    def _following(self, indent: str | None) -> re.Pattern[str]:
        if indent is not None:
            return re.compile(rf"\n[ \t]{{0,{len(indent)}}}(?=[{{\[\]])")
        own = _FIRST_KEY.match(self._text, self._at)
        keys = self._first_keys | ({own.group(1)} if own else set())
        names = "|".join(re.escape(key) for key in sorted(keys)) or '[^"]*'
        lists = r'|\[\s*["\[{]' if self._here() == "[" else ""
        return re.compile(rf'\n(?=\{{)|(?<=[\s,])(?:\{{\s*"(?:{names})"\s*:{lists})')

    def _pass_value(self) -> None:
        """Go to the end of the value that begins here, however long it is."""
        level, in_string = 0, False
        while True:
            pattern = _STRING_END if in_string else _BRACKET
            match = pattern.search(self._text, self._at)
            if match is None:
                # A backslash at the end belongs to the character after it.
                cut = in_string and self._text.endswith("\\")
                self._at = max(self._at, len(self._text) - cut)
                if self._ended:
                    self._at = len(self._text)
                    return
                self._more()
                continue
            self._at = match.end()
            token = match.group()
            if token == '"':
                in_string = not in_string
            elif not in_string:
                level += 1 if token in "[{" else -1
            if level <= 0 and not in_string:
                return

    def _pass_members(self) -> None:
        """Pass over what an object holds after its rows; lists of rows among it are told of."""
        while self._skip_space():
            if self._here() == "}":
                self._at += 1
                return
            while not self._ended and len(self._text) - self._at < _LOOK_AHEAD:
                self._more()
            member = _MEMBER.match(self._text, self._at)
            if member is None:
                return
            name = member.group(1)
            self._at = member.end()
            if not self._skip_space():
                return
            if _OPENS_ARRAY.match(self._text, self._at):
                self._notes.append(f"{self._source}: the list `{name}` of the object was not read")
            if self._here() in '"[{':
                self._pass_value()
            else:
                end = re.compile(r"[,}\s]").search(self._text, self._at)
                self._at = end.start() if end else len(self._text)
