"""Rows of plain text: one document a line or a paragraph, one dialogue of ChatML turns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from palmswift.data.lines import LONGEST_ROW, Line, Lines, too_large
from palmswift.data.row import Place, Rejection, SourceRow

Division = Literal["lines", "paragraphs", "parted", "systems", "questions"]
"""What a row of a text file is; the last three are ChatML, by what begins a dialogue."""

_LONG_LINE = 200
"""Characters; where half of the lines are longer, a line is a document and not wrapped text."""

_MANY_QUESTIONS = 20

_TURN = re.compile(r"[ \t\ufeff]*<\|im_start\|>[ \t]*(\w*)")
_GAP = re.compile(
    r"<\|im_end\|>(\s*(?:(?:-{3,}|={3,}|<\|endoftext\|>)\s*)*)<\|im_start\|>[ \t]*(\w+)"
)
_SEPARATOR = re.compile(r"\s*(?:-{3,}|={3,}|(?:<\|endoftext\|>)+)\s*")
_BETWEEN_TURNS = re.compile(r"(?<=<\|im_end\|>)[ \t]*(?=<\|(?:im_start|endoftext)\|>)")
_AFTER_SEPARATOR = re.compile(r"(?<=<\|endoftext\|>)(?=<\|im_start\|>)")

NOTES: dict[Division, str] = {
    "lines": "each line is a text of its own",
    "paragraphs": "blank lines part the texts",
    "parted": "a dialogue begins at a system turn, and at a user turn after a blank line, `---` "
    "or <|endoftext|>",
    "systems": "a dialogue begins at a system turn, and after `---` or <|endoftext|>",
    "questions": "nothing parts the dialogues, so each user turn begins one: put a blank line "
    "between dialogues if they have several questions",
}
"""What the user is told of how a file was divided."""


def division_of(sample: str) -> Division:
    """What the rows of a text that begins with `sample` are.

    Text without ChatML has one document a line where most lines are long or no line is blank, else
    one a paragraph. In ChatML a system turn begins a dialogue, and so does a user turn after `---`,
    `===` or <|endoftext|>; after a blank line only where fewer answers stand after one. Where
    none of these parts anything, a text of up to 20 questions is one dialogue, and a longer one is
    a dialogue a question.
    """
    if "<|im_start|>" in sample:
        return _division_of_turns(sample)
    lines = [line.strip() for line in sample.strip().split("\n")]
    filled = sorted(len(line) for line in lines if line)
    long = bool(filled) and filled[len(filled) // 2] > _LONG_LINE
    return "lines" if long or len(filled) == len(lines) else "paragraphs"


def _division_of_turns(sample: str) -> Division:
    gaps = [(match.group(1), match.group(2)) for match in _GAP.finditer(sample)]
    after_blank = [role for gap, role in gaps if gap.count("\n") > 1 and not gap.strip()]
    if after_blank.count("user") > after_blank.count("assistant"):
        return "parted"
    systems = len(re.findall(r"<\|im_start\|>[ \t]*system\b", sample))
    if systems > 1 or any(gap.strip() for gap, _ in gaps):
        return "systems"
    questions = len(re.findall(r"<\|im_start\|>[ \t]*user\b", sample))
    return "questions" if questions > _MANY_QUESTIONS else "systems"


def rows(lines: Lines, source: str, division: Division) -> Iterator[SourceRow | Rejection]:
    """The texts of the file; a dialogue is its ChatML text, turns and all."""
    pieces: Iterator[list[Line]]
    if division == "lines":
        pieces = ([line] for line in lines if line.text.strip())
    elif division == "paragraphs":
        pieces = _paragraphs(lines)
    else:
        pieces = _dialogues(lines, division)
    for number, piece in enumerate(pieces, 1):
        place = Place(source, piece[0].number, number)
        text = "\n".join(line.text for line in piece).strip("\ufeff \t\r\n")
        if len(text) > LONGEST_ROW or not all(line.whole for line in piece):
            yield too_large(place, text)
        else:
            yield SourceRow(place, text.replace("\r\n", "\n"))


def _paragraphs(lines: Lines) -> Iterator[list[Line]]:
    piece = _Piece()
    for line in lines:
        if line.text.strip():
            piece.add(line)
        elif piece.lines:
            yield piece.take()
    if piece.lines:
        yield piece.take()


def _dialogues(lines: Lines, division: Division) -> Iterator[list[Line]]:
    piece = _Piece()
    after_separator = after_blank = in_turn = only_system = False
    for line in _one_turn_a_line(lines):
        if not in_turn and _SEPARATOR.fullmatch(line.text):
            after_separator = True
            continue
        turn = _TURN.match(line.text)
        role = turn.group(1) if turn else ""
        parted = after_separator or (after_blank and division == "parted")
        begins = role == "system" or (role == "user" and (parted or division == "questions"))
        if begins and piece.lines and not (role == "user" and only_system):
            yield piece.take()
        # Of a turn whose end is missing, a blank line before the next turn is not the text's own.
        after_blank = not line.text.strip()
        if in_turn or not after_blank:
            piece.add(line)
            after_separator = False
            in_turn = not line.text.rstrip().endswith("<|im_end|>")
        if turn:
            only_system = role == "system"
    if piece.lines:
        yield piece.take()


class _Piece:
    """Lines that are collected; of a piece that is far too long, only the beginning is kept."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._size = 0

    def add(self, line: Line) -> None:
        if self._size <= LONGEST_ROW:
            self.lines.append(line)
        self._size += len(line.text) + 1

    def take(self) -> list[Line]:
        taken, self.lines, self._size = self.lines, [], 0
        return taken


def _one_turn_a_line(lines: Lines) -> Iterator[Line]:
    """The lines, divided further where a turn ends and the next begins on one line."""
    for line in lines:
        if "<|im_end|>" not in line.text:
            yield line
            continue
        for part in _BETWEEN_TURNS.split(line.text):
            for text in _AFTER_SEPARATOR.split(part):
                yield Line(line.number, text, line.whole)
