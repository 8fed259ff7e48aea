"""Finds the exceptions that ended a Python process in what it printed.

A log has text of all kinds in it: rows of the user's data that ms-swift shows, errors of single
rows that it survived, progress bars. Only an exception after which the program did nothing more
counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_HEADER = "Traceback (most recent call last):"
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_RANK = re.compile(r"\[(?:rank|default)\d+\]:? ?")
_WORKER = re.compile(r"(?:\x1b\[\d+m)?\([^()]*pid=\d+[^()]*\)(?:\x1b\[0m)? ?")
"""What Ray's driver puts before each line of a worker."""
_PLUGIN = re.compile(r"^_swift_external_[0-9a-f]+\.")
"""The module's name that ms-swift gives a plugin file."""
_WRAPPED = "ray.exceptions.RayTaskError("
"""Stands between the driver's calls and those of the worker whose exception it passes on."""
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]+)", line \d+(?:, in (?P<function>.+))?$')
_NAME = r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*"
_EXCEPTION = re.compile(rf"^(?P<name>{_NAME})(?:: (?P<text>.*)|:)?$")
_BARE = re.compile(
    rf"^{_NAME}(?:Error|Exception|Interrupt|Failure|Exit)(?::.*)?$|^(?:{_NAME}\.)?OutOfMemory.*$"
)
_GOES_ON = re.compile(r"\[(?:INFO|WARNING):swift\]|^\{'(?:loss|eval_loss|train_runtime)'")
"""What ms-swift prints while it is at work, at a line's start or behind a progress bar."""
_MESSAGE_LINES = 40


class Frame(NamedTuple):
    """One call of a traceback."""

    file: str
    function: str


class Raised(NamedTuple):
    """An exception: its type as printed, its message (all lines), its calls from the outermost."""

    name: str
    text: str
    frames: tuple[Frame, ...]

    @property
    def said(self) -> str:
        """Type and message, as Python prints them."""
        return f"{self.name}: {self.text}" if self.text else self.name


class Reading(NamedTuple):
    """What a log says of how its program ended."""

    raised: tuple[Raised, ...]
    """The exceptions that ended it, in the order printed: a chain's first cause first."""
    survived: tuple[Raised, ...]
    """Those after which it went on, such as single rows that could not be encoded."""
    closing: tuple[str, ...]
    """The lines after the last sign that it was at work, ranks' marks taken off."""


def read_log(lines: Sequence[str]) -> Reading:
    """The exceptions in a log's lines."""
    ended: list[Raised] = []
    of_ranks: list[Raised] = []
    survived: list[Raised] = []
    closing: list[str] = []
    at = 0
    while at < len(lines):
        line = _without_rank(lines[at])
        if line.rstrip().endswith(_HEADER):
            raised, after = _read_traceback(lines, at + 1)
            if raised is not None:
                if _GOES_ON.search(line):
                    survived.append(raised)
                else:
                    # A rank's error ends the training, though another rank may still print.
                    (of_ranks if _RANK.search(lines[at]) else ended).append(raised)
                closing += raised.said.splitlines()
            at = after
            continue
        if _WORKER.match(line):
            pass  # its output comes late, behind what ended the driver
        elif _GOES_ON.search(line):
            survived += ended
            ended, closing = [], []
        elif line.strip():
            closing.append(line)
        at += 1
    return Reading(tuple([*of_ranks, *ended] or _bare(closing)), tuple(survived), tuple(closing))


def _without_rank(line: str) -> str:
    return _RANK.sub("", line, count=1)


def _read_traceback(lines: Sequence[str], at: int) -> tuple[Raised | None, int]:
    """The exception whose traceback begins at a line, and the line after it."""
    frames: list[Frame] = []
    while at < len(lines):
        line = _without_rank(lines[at])
        if found := _FRAME.match(line):
            frames.append(Frame(found["file"], found["function"] or "<module>"))
        elif line[:1] not in (" ", "") and not line.startswith(_WRAPPED):
            break
        at += 1
    if at >= len(lines):
        return None, at
    named = _EXCEPTION.match(_without_rank(lines[at]))
    if named is None:
        return None, at
    message = [named["text"] or ""]
    at += 1
    while at < len(lines) and len(message) < _MESSAGE_LINES:
        line = _without_rank(lines[at])
        if _ends_message(line):
            break
        message.append(line)
        at += 1
    name = _PLUGIN.sub("", named["name"])
    return Raised(name, "\n".join(message).strip(), tuple(frames)), at


def _ends_message(line: str) -> bool:
    return (
        line in _CHAINED
        or line.rstrip().endswith(_HEADER)
        or _GOES_ON.search(line) is not None
        or re.match(r"^(?:Train|Val|Map)[^\n]{0,40}: +\d+%\|", line) is not None
        or re.match(r"^[EWI]\d{4} |^\[[EWIF]\d+ ", line) is not None
    )


def _bare(closing: Sequence[str]) -> list[Raised]:
    """Lines that look like an exception's, where the traceback above was cut off or never was."""
    found = [line for line in closing if _BARE.match(line)]
    if not found:
        return []
    name, _, text = found[-1].partition(": ")
    return [Raised(name, text, ())]
