"""Finds the `swift` commands of a shell script and reads their arguments as ms-swift would."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from palmswift.errors import InputError, Problem
from palmswift.files import is_file
from palmswift.paths import user_path
from palmswift.recipes.catalogue import Flag, load_catalogue, load_renames, nearest
from palmswift.recipes.recipe import SwiftValue, flag_words
from palmswift.recipes.shell_text import Command, Word, read_script
from palmswift.recipes.yaml_text import parse

COMMANDS = ("sft", "pt", "rlhf", "export", "deploy", "infer")
TRAINING = ("sft", "pt", "rlhf")

_BEFORE = {"exec", "nohup", "time", "env", "command", "nice"}
_MODULE = re.compile(r"\bswift[./]cli[./](\w+?)(?:\.py)?$")
_TRUE = {"yes", "true", "t", "y", "1"}
_FALSE = {"no", "false", "f", "n", "0"}


@dataclass
class SwiftCall:
    """One `swift` command: its arguments by the names of the version that they are checked for."""

    command: str
    line: int
    arguments: dict[str, SwiftValue] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    """Where each argument stands."""
    env: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    """Argument or variable to what in it only a running shell could fill in."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    """What was read in another way than it is written: old names, output that went elsewhere."""


def read_calls(text: str, name: str, variables: Mapping[str, str] | None = None) -> list[SwiftCall]:
    """The `swift` commands of a script, in its order; `name` stands before the lines told.

    InputError: the text is no shell script, or no `swift` command that a recipe knows is in it.
    """
    script = read_script(text, variables)
    calls, others = [], []
    for index, command in enumerate(script.commands):
        words = _swift_words(command)
        if words is None:
            continue
        if len(words) < 2 or words[1].text not in COMMANDS:
            others.append(Problem("is not read", f"{name}:{command.line}", _other_command(words)))
            continue
        call = _Reading(command, words, name).read()
        call.problems += _cut_off(script.commands[index + 1 :], name)
        calls.append(call)
    if script.fault is not None and not calls:
        what, line = script.fault
        raise InputError(
            f"{name} cannot be read as a shell script", [Problem(what, f"{name}:{line}")]
        )
    if not calls:
        known = ", ".join(f"swift {command}" for command in COMMANDS)
        raise InputError(f"{name} has no command that can be imported", others, remedy=known)
    if script.fault is not None:
        what, line = script.fault
        calls[-1].problems.append(Problem(f"cannot be read: {what}", f"{name}:{line}"))
    return calls


def _swift_words(command: Command) -> list[Word] | None:
    """`swift COMMAND ...`, without what starts it; None: another program."""
    words = command.words
    while words and words[0].text in _BEFORE:
        words = words[1:]
        while words and (words[0].text.startswith("-") or "=" in words[0].text):
            words = words[1:]
    if not words:
        return None
    program = PurePath(words[0].text).name
    if program in ("swift", "megatron"):
        return words
    for index, word in enumerate(words[1:], start=1):
        called = _MODULE.search(word.text)
        if called and program.startswith(("python", "torchrun")):
            _keep_processes(command, words[:index])
            name = called.group(1).replace("_", "-")
            return [words[0]._replace(text="swift"), word._replace(text=name), *words[index + 1 :]]
    return None


def _keep_processes(command: Command, words: Sequence[Word]) -> None:
    """torchrun's number of processes, as the variable that `swift` reads it from."""
    for word, following in zip(words, [*words[1:], Word("", 0)], strict=True):
        name, equals, value = word.text.replace("-", "_").partition("=")
        if name == "__nproc_per_node":
            command.env["NPROC_PER_NODE"] = word._replace(text=value) if equals else following


def _other_command(words: Sequence[Word]) -> str:
    if PurePath(words[0].text).name == "megatron":
        return "Megatron has arguments of its own; a recipe trains with `swift sft`"
    return "a recipe takes " + ", ".join(COMMANDS)


def _cut_off(following: Sequence[Command], name: str) -> Iterator[Problem]:
    """Lines of arguments that the shell does not give to the command before them."""
    for command in following:
        if not command.words or not command.words[0].text.startswith("--"):
            return
        what = f"{command.words[0].text} is cut off from the command: the line before it"
        what += " does not end with a backslash, or is a comment"
        remedy = "end each line but the last with a backslash, and put comments before the command"
        yield Problem(what, f"{name}:{command.line}", remedy)


class _Reading:
    """Reads one command's words into a call."""

    def __init__(self, command: Command, words: Sequence[Word], name: str) -> None:
        self.name = name
        self.call = SwiftCall(words[1].text, words[0].line)
        self.flags = load_catalogue().flags(self.call.command)
        self._environment(command)
        self.words = self._with_file(words[2:])
        where = self._where(words[0].line)
        if command.conditional:
            what = "stands in a condition, a loop or a function, and is read as if it ran once"
            self.call.notes.append(Problem(what, where))
        if command.redirected:
            what = "its output goes to a file or another command"
            self.call.notes.append(Problem(what, where, "the run folder keeps the log; left out"))

    def read(self) -> SwiftCall:
        for name, words, line in self._grouped():
            where = self._where(line)
            plain = name.replace("-", "_")
            if plain.startswith("no_") and plain not in self.flags and plain[3:] in self.flags:
                self._put(plain[3:], False, [], line)  # transformers' parser adds --no_X
                continue
            full = self._full_name(plain, where)
            if full is not None:
                value = self._value(full, words, where)
                if value is not None:
                    self._put(full, value, words, line)
        return self.call

    def _with_file(self, words: Sequence[Word]) -> list[Word]:
        """The words, with those of the YAML or JSON file that comes first (swift/cli/main.py)."""
        if not words or not words[0].text.endswith((".yaml", ".yml", ".json")):
            return list(words)
        first, where = words[0], self._where(words[0].line)
        path = next((p for p in self._places(first.text) if is_file(p)), None)
        if path is None:
            what = f"the arguments stand in {first.text}, which is not there"
            self.call.problems.append(Problem(what, where, "it is looked for beside the script"))
            return list(words[1:])
        read = parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
        self.call.problems += read.problems
        values = read.value if isinstance(read.value, dict) else {}
        environment = values.pop("ENV", None)
        for name, value in environment.items() if isinstance(environment, dict) else ():
            self.call.env.setdefault(name, str(value))
        given = []
        for name, value in values.items():
            texts = [f"--{name}", *([] if value is None else flag_words(value))]
            given += [Word(text, first.line) for text in texts]
        return [*given, *words[1:]]

    def _places(self, name: str) -> list[Path]:
        return [user_path(name), Path(self.name).parent / name]

    def _where(self, line: int) -> str:
        return f"{self.name}:{line}"

    def _environment(self, command: Command) -> None:
        for name, word in command.env.items():
            self.call.env[name] = word.text
            self.call.lines[name] = word.line or command.line
            if word.unknown:
                self.call.unknown[name] = list(word.unknown)

    def _grouped(self) -> Iterator[tuple[str, list[Word], int]]:
        """Each `--name` with the words after it."""
        name, words, line = "", list[Word](), self.call.line
        for word in self.words:
            if not word.text.strip():
                what = "a backslash with a blank behind it does not join the lines"
                if word.text:
                    self.call.problems.append(
                        Problem(what, self._where(word.line), "take the blank away")
                    )
                    continue
            if word.text.startswith("--"):
                if name:
                    yield name, words, line
                name, equals, value = word.text[2:].partition("=")
                words = [word._replace(text=value)] if equals else []
                line = word.line
            elif name:
                words.append(word)
            else:
                remedy = "take it away" if not word.unknown else "write its value out"
                what = f"{word.text!r} stands before any argument"
                self.call.problems.append(Problem(what, self._where(word.line), remedy))
        if name:
            yield name, words, line

    def _full_name(self, name: str, where: str) -> str | None:
        """The argument that is meant by a name, an old name, or the beginning of a name."""
        if name in self.flags:
            return name
        rename = load_renames().names.get(name)
        if rename is not None and rename.new in self.flags:
            note = f" ({rename.note})" if rename.note else ""
            what = f"--{name} is called {rename.new} since ms-swift {rename.since}{note}"
            self.call.notes.append(Problem(what, where, "written by its new name"))
            return rename.new
        begun = [flag for flag in self.flags if flag.startswith(name)]
        if len(begun) == 1:  # argparse takes what is unambiguous
            self.call.notes.append(Problem(f"--{name} is short for {begun[0]}", where))
            return begun[0]
        like = nearest(name, self.flags)
        remedy = f"did you mean {' or '.join(like)}?" if like else "take it away"
        title = f"`swift {self.call.command}` of ms-swift {load_catalogue().ms_swift}"
        self.call.problems.append(Problem(f"--{name} is not an argument of {title}", where, remedy))
        return None

    def _value(self, name: str, words: list[Word], where: str) -> SwiftValue | None:
        flag = self.flags[name]
        texts = [self._new_value(name, word.text, where) for word in words]
        if flag.many and texts:
            return [_typed(flag, text) for text in texts]
        if not texts and flag.kind == "bool":
            return True
        if len(texts) != 1:
            what = f"--{name} has {len(texts)} values" if texts else f"--{name} has no value"
            self.call.problems.append(Problem(what, where, flag.doc))
            return None
        value: SwiftValue = _typed(flag, texts[0])
        return value

    def _new_value(self, name: str, text: str, where: str) -> str:
        new = load_renames().values.get(name, {}).get(text)
        if new is None:
            return text
        self.call.notes.append(Problem(f"--{name} {text} is called {new} now", where))
        return new

    def _put(self, name: str, value: SwiftValue, words: Sequence[Word], line: int) -> None:
        if name in self.call.arguments:
            what = f"--{name} stands twice, and ms-swift takes the last"
            self.call.notes.append(Problem(what, self._where(line)))
            self.call.unknown.pop(name, None)
        self.call.arguments[name] = value
        self.call.lines[name] = line
        unknown = [part for word in words for part in word.unknown]
        if unknown:
            self.call.unknown[name] = unknown


def _typed(flag: Flag, text: str) -> Any:
    """The text as its argument's kind; unchanged where it does not fit, which the check tells."""
    if flag.kind == "bool" and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if flag.kind == "choice":
        return next((choice for choice in flag.choices if str(choice) == text), text)
    if flag.kind == "json" and text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    if flag.kind in ("int", "float"):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return text
