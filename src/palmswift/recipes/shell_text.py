"""Reads a shell script without running it: its commands, with the variables it sets filled in.

What only a running shell knows (`$(date)`, a variable from outside, `*.jsonl`) stays in the word
as it is written, and the word says so.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_BREAKS = " \t\n;&|()<>"
_NAME = re.compile(r"[A-Za-z_]\w*")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_REDIRECTION = re.compile(r"(?:\d*|&)(?:>>?&?|<&?)(?:\d+(?=\s|$|[;&|])|-)?")
_PARAMETER = re.compile(r"(\w+)(?:\[@\])?(?:(:?-)(.*))?", re.DOTALL)
_HERE = re.compile(r"<<(-?)\s*(['\"]?)(\w+)\2")
_OPENING = {"if", "for", "while", "until", "case", "select", "{"}
_CLOSING = {"fi", "done", "esac", "}"}
_BETWEEN = {"then", "do", "else", "elif", "!", "function", "time"}
_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
}


class Word(NamedTuple):
    """One word of a command."""

    text: str
    line: int
    unknown: tuple[str, ...] = ()
    """What in it only a running shell could fill in, as it is written."""


@dataclass
class Command:
    """One simple command, and the environment that it is given."""

    line: int
    words: list[Word] = field(default_factory=list)
    env: dict[str, Word] = field(default_factory=dict)
    """Exported before it, or written in front of it."""
    conditional: bool = False
    """Stands in a loop, a condition or a function."""
    redirected: bool = False
    """Its output goes to a file or to another command."""


class Script(NamedTuple):
    """The commands of a script in their order; `fault` is why reading stopped, with its line."""

    commands: list[Command]
    fault: tuple[str, int] | None = None


class _Stop(Exception):
    """The text cannot be read on from here."""


def read_script(text: str, variables: Mapping[str, str] | None = None) -> Script:
    """The commands of `text`; `variables` are set before its first line."""
    reader = _Reader(text.replace("\r\n", "\n"), dict(variables or {}))
    try:
        reader.read()
    except _Stop as stop:
        return Script(reader.commands, (str(stop), reader.line))
    return Script(reader.commands)


class _Reader:
    def __init__(self, text: str, variables: dict[str, str]) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.depth = 0
        self.commands: list[Command] = []
        self.variables = {name: [Word(value, 0)] for name, value in variables.items()}
        self.given = set(variables)
        self.exported: dict[str, Word] = {}
        self._here: list[tuple[str, bool]] = []
        self._begin()

    def read(self) -> None:
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in " \t" or self.text.startswith("\\\n", self.at):
                self._skip(2 if character == "\\" else 1)
            elif character == "#":
                self._skip_to_line_end()
            elif character == "\n":
                self._skip(1)
                self._end()
                self._skip_here_documents()
            elif self._redirection():
                self.current.redirected = True
            elif character in ";&|()":
                piped = character == "|" and not self.text.startswith("||", self.at)
                self.current.redirected |= piped
                self._skip(1)
                self._end()
            elif not (not self.current.words and self._assignment()):
                self._take(self._word())
        self._end()

    def _begin(self) -> None:
        self.current = Command(self.line)
        self.assigned: dict[str, list[Word]] = {}

    def _end(self) -> None:
        """Finish the command; assignments that stand alone stay for those that follow."""
        command = self.current
        if command.words and command.words[0].text in ("export", "declare", "readonly", "local"):
            self._export(command.words[1:])
        elif command.words:
            own = {name: words[0] for name, words in self.assigned.items() if words}
            command.env = {**self.exported, **own}
            command.conditional = self.depth > 0
            self.commands.append(command)
        else:
            for name, words in self.assigned.items():
                self._set(name, words)
        self._begin()

    def _set(self, name: str, words: list[Word]) -> None:
        if name in self.given:
            return
        if self.depth:  # which branch runs is not known
            words = [word._replace(unknown=(f"${name}",), text=f"${name}") for word in words[:1]]
        self.variables[name] = words
        if name in self.exported and words:
            self.exported[name] = words[0]

    def _export(self, words: list[Word]) -> None:
        for word in words:
            name, equals, value = word.text.partition("=")
            if equals:
                self._set(name, [word._replace(text=value)])
            values = self.variables.get(name)
            if _NAME.fullmatch(name) and values:
                self.exported[name] = values[0]

    def _take(self, words: list[Word]) -> None:
        if not self.current.words:
            self.current.line = words[0].line if words else self.line
            keyword = words[0].text if len(words) == 1 else ""
            if keyword in _OPENING:
                self.depth += 1
                if keyword == "{":
                    return
            elif keyword in _CLOSING:
                self.depth -= 1
            elif keyword in _BETWEEN:
                return
        self.current.words += words

    def _assignment(self) -> bool:
        found = _ASSIGNMENT.match(self.text, self.at)
        if found is None:
            return False
        name, more = found.groups()
        self._skip(len(found.group()))
        array = self.text.startswith("(", self.at)
        if array:
            words = self._array()
        elif self.at < len(self.text) and self.text[self.at] not in _BREAKS:
            words = self._word(split=False) or [Word("", self.line)]
        else:
            words = [Word("", self.line)]
        before = self.variables.get(name, [])
        if more and array:
            words = [*before, *words]
        elif more and before:
            words = [before[0]._replace(text=before[0].text + words[0].text), *before[1:]]
        self.assigned[name] = words
        return True

    def _array(self) -> list[Word]:
        words: list[Word] = []
        self._skip(1)
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] in " \t\n" or self.text.startswith("\\\n", self.at):
                self._skip(1)
            elif self.text[self.at] == "#":
                self._skip_to_line_end()
            elif self.text[self.at] in _BREAKS:
                raise _Stop(f"{self.text[self.at]!r} inside of a list")
            else:
                words += self._word()
        self._skip(1)
        return words

    def _redirection(self) -> bool:
        here = _HERE.match(self.text, self.at)
        if here is not None:
            self._skip(len(here.group()))
            self._here.append((here.group(3), bool(here.group(1))))
            return True
        found = _REDIRECTION.match(self.text, self.at)
        if found is None or not found.group().strip("0123456789"):
            return False
        self._skip(len(found.group()))
        if found.group()[-1] in "<>":
            while self.text[self.at : self.at + 1] in (" ", "\t"):
                self._skip(1)
            if self.text[self.at : self.at + 1] not in tuple(_BREAKS):
                self._word()
        return True

    def _skip_here_documents(self) -> None:
        for mark, indented in self._here:
            while self.at < len(self.text):
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                line = self.text[self.at : end]
                self._skip(end + 1 - self.at)
                if (line.lstrip("\t") if indented else line) == mark:
                    break
        self._here.clear()

    def _skip(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count

    def _skip_to_line_end(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _until(self, mark: str) -> str:
        """The text up to `mark`, which is passed over too."""
        end = self.text.find(mark, self.at)
        if end < 0:
            raise _Stop(f"{mark} is missing")
        found = self.text[self.at : end]
        self._skip(end + len(mark) - self.at)
        return found

    def _word(self, *, split: bool = True) -> list[Word]:
        """The word here: several or none when a variable in it holds several or none."""
        building = _Building(self.line)
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in _BREAKS:
            character = self.text[self.at]
            if self.text.startswith("\\\n", self.at):
                self._skip(2)
            elif character == "\\":
                building.add(self.text[self.at + 1 : self.at + 2])
                self._skip(2)
            elif character == "'":
                self._skip(1)
                building.add(self._until("'"))
            elif character == '"':
                self._skip(1)
                self._quoted(building)
            elif self.text.startswith("$'", self.at):
                self._skip(2)
                plain = self._until("'")
                building.add(plain.replace("\\n", "\n").replace("\\t", "\t"))
            elif character in "$`":
                for words in self._expansion():
                    building.add_words(words, split=split)
            else:
                if character in "*?" and split:
                    building.mark(character)
                building.add(character)
                self._skip(1)
        if self.at == start:
            raise _Stop(f"{self.text[self.at : self.at + 1]!r} cannot be read here")
        return building.done()

    def _quoted(self, building: _Building) -> None:
        building.add("")
        while self.text[self.at : self.at + 1] != '"':
            if self.at >= len(self.text):
                raise _Stop('" is missing')
            if self.text.startswith("\\\n", self.at):
                self._skip(2)
            elif re.match(r"\\[$`\"\\]", self.text[self.at : self.at + 2]):
                building.add(self.text[self.at + 1])
                self._skip(2)
            elif self.text[self.at] in "$`":
                for words in self._expansion():
                    building.add_words(words, split=False)
            else:
                building.add(self.text[self.at])
                self._skip(1)
        self._skip(1)

    def _expansion(self) -> list[list[Word]]:
        """What a `$...` or a backquote becomes, as one list of words."""
        start, line = self.at, self.line
        value = self._value()
        if value is None:
            source = self.text[start : self.at]
            value = [Word(source, line, (source,))]
        return [value]

    def _value(self) -> list[Word] | None:
        """The words of the expansion here, which is passed over; None: only a shell knows."""
        if self.text[self.at] == "`":
            self._skip(1)
            return self._substitution(self._until("`"))
        self._skip(1)
        following = self.text[self.at : self.at + 1]
        if self.text.startswith("((", self.at):
            self._skip(2)
            return self._number(self._until("))"))
        if following == "(":
            return self._substitution(self._bracketed())
        if following == "{":
            self._skip(1)
            return self._parameter(self._until("}"))
        name = _NAME.match(self.text, self.at)
        if name is not None:
            self._skip(len(name.group()))
            return self.variables.get(name.group())
        if following and following in "@*#?$!-0123456789":
            self._skip(1)
            return None
        return [Word("$", self.line)]

    def _bracketed(self) -> str:
        depth, start = 0, self.at
        while self.at < len(self.text):
            depth += {"(": 1, ")": -1}.get(self.text[self.at], 0)
            self._skip(1)
            if depth == 0:
                return self.text[start + 1 : self.at - 1]
        raise _Stop(") is missing")

    def _parameter(self, inside: str) -> list[Word] | None:
        """`${NAME}`, `${NAME[@]}`, `${NAME:-default}` and `${NAME-default}`."""
        found = _PARAMETER.fullmatch(inside)
        if found is None:
            return None
        name, mark, default = found.groups()
        value = self.variables.get(name)
        if mark and (value is None or (mark == ":-" and [word.text for word in value] == [""])):
            plain = default.strip("\"'")
            return None if "$" in plain or "`" in plain else [Word(plain, self.line)]
        return value

    def _substitution(self, inside: str) -> list[Word] | None:
        """Only `expr` is worked out, which scripts use to divide a batch among GPUs."""
        words = inside.split()
        return self._number(" ".join(words[1:])) if words[:1] == ["expr"] else None

    def _number(self, expression: str) -> list[Word] | None:
        def known(found: re.Match[str]) -> str:
            value = self.variables.get(found.group(1), [])
            return value[0].text if len(value) == 1 and not value[0].unknown else found.group()

        plain = re.sub(r"\$?\{?\b([A-Za-z_]\w*)\b\}?", known, expression).replace("\\*", "*")
        try:
            return [Word(str(_worked_out(ast.parse(plain.strip(), mode="eval").body)), self.line)]
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
            return None


class _Building:
    """A word while it is read; an expansion may end it and begin others."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._words: list[Word] = []
        self._text: str | None = None
        self._unknown: list[str] = []

    def add(self, text: str) -> None:
        self._text = (self._text or "") + text

    def mark(self, unknown: str) -> None:
        self._unknown.append(unknown)

    def add_words(self, words: list[Word], *, split: bool) -> None:
        """Put in what a variable holds: words of its own, and blanks that split it if unquoted."""
        for index, word in enumerate(words):
            if index:
                self._finish()
            if not split or word.unknown:
                self.add(word.text)
                self._unknown += word.unknown
                continue
            for blank, part in re.findall(r"(\s*)(\S*)", word.text):
                if blank:
                    self._finish()
                if part:
                    self.add(part)

    def done(self) -> list[Word]:
        self._finish()
        return self._words

    def _finish(self) -> None:
        if self._text is not None:
            self._words.append(Word(self._text, self._line, tuple(self._unknown)))
        self._text, self._unknown = None, []


def _worked_out(node: ast.expr) -> int:
    """The value of whole-number arithmetic. ValueError: anything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_worked_out(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return _ARITHMETIC[type(node.op)](_worked_out(node.left), _worked_out(node.right))
    raise ValueError("not arithmetic")
