"""What can go wrong in a way that its user can mend, each kind with its exit code.

Anything else is a bug and keeps its traceback. Exit codes are the contract of every command:
0 done, 1 a gate or check failed, 2 the input is wrong, 3 a child (training, export, server,
endpoint) failed, 4 incomplete but resumable, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

INTERRUPTED = 130
"""Exit code of a command that was stopped by Ctrl-C or SIGTERM."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands, what is wrong with it, what to do instead."""

    what: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n    -> {self.remedy}" if self.remedy else head


class PalmswiftError(Exception):
    """An error that is printed without a traceback; all its problems are told at once."""

    exit_code = 2

    def __init__(self, summary: str, problems: Sequence[Problem] = (), *, remedy: str = "") -> None:
        self.summary = summary
        self.problems = tuple(problems)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.summary, *(f"  {problem}" for problem in self.problems)]
        if self.remedy:
            lines.append(f"  -> {self.remedy}")
        return "\n".join(lines)


class InputError(PalmswiftError):
    """A recipe, file, flag or machine is not what the command needs (exit code 2)."""

    exit_code = 2


class GateError(PalmswiftError):
    """A check ran and its answer is no: a gate, a fit, a parity (exit code 1)."""

    exit_code = 1


class ChildError(PalmswiftError):
    """A child process or an endpoint failed (exit code 3)."""

    exit_code = 3


class IncompleteError(PalmswiftError):
    """Part of the work is done and kept; the same command goes on from there (exit code 4)."""

    exit_code = 4
