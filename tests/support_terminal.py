"""A command on a pseudo-terminal, as a person has it before them."""

from __future__ import annotations

import os
import pty
import select
import time

import psutil


class Terminal:
    """A command on a pseudo-terminal: type into it, wait for what it shows."""

    def __init__(self, words: list[str]) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "dumb"
            os.execv(words[0], words)
        self.shown = ""

    def expect(self, text: str) -> None:
        """Read until `text` has been shown."""
        deadline = time.monotonic() + 30
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} was not shown: {self.shown!r}"
            if select.select([self.file], [], [], 0.1)[0]:
                self.shown += os.read(self.file, 65536).decode("utf-8", "replace")
        self.shown = self.shown[self.shown.index(text) + len(text) :]

    def type(self, text: str) -> None:
        """Type `text`."""
        os.write(self.file, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C, once the command waits for input as it does for a person.

        Between the moment that readline shows a prompt and its `select`, CPython notes a signal
        but acts on it only at the next key.
        """
        deadline = time.monotonic() + 30
        while psutil.Process(self.pid).status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < deadline, "the command never waits"
            time.sleep(0.01)
        self.type("\x03")

    def end(self) -> int:
        """The exit code, once the command has ended."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.file)
        return os.waitstatus_to_exitcode(status)
