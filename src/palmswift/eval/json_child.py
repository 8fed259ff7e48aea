"""A child process that answers JSON lines: for what must not run inside the evaluation itself.

Functions of the user's own (they may hang or exit) and models (they need torch) run this way. What
the child prints goes to its log, not into the answers; it ends when we do, since its input closes.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from palmswift.process import stop_group

_SHOWN = 2000
_LATE = 2.0
"""Seconds that the child's own watch is behind ours."""


class ChildGone(Exception):
    """The child ended or did not answer in time; says how, with the end of what it printed."""


Child = TypeVar("Child", bound="JsonChild")


class JsonChild:
    """`python -m MODULE`, started at the first question and again after it went away."""

    def __init__(self, module: str, *, env: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self: Child) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def ask(self, question: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """The child's answer to one question; ChildGone when there is none within `timeout`."""
        process = self._process or self._start()
        line = json.dumps({**question, "timeout": timeout}, ensure_ascii=True) + "\n"
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line.encode())
            process.stdin.flush()
            answer = _read_line(process.stdout.fileno(), timeout)
        except BrokenPipeError:
            answer = b""
        if not answer:
            said = self._last_words()
            self.stop()
            how = f"ended (exit code {process.returncode})"
            if answer is None:
                how = f"gave no answer within {timeout:g} s"
            raise ChildGone(f"it {how}" + (f": {said}" if said else ""))
        document: dict[str, Any] = json.loads(answer)
        return document

    def stop(self) -> None:
        """End the child; the next question starts a new one."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        stop_group(process.pid, 0.5, reap=process)
        self._log.close()

    def _start(self) -> subprocess.Popen[bytes]:
        # Closed by `stop`, which may be long after this function.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._env,
            start_new_session=True,
        )
        return self._process

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _SHOWN))
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


def _read_line(descriptor: int, timeout: float) -> bytes | None:
    """A line of a pipe; empty when it closed, None when none came in time."""
    deadline = time.monotonic() + timeout
    received = b""
    while not received.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        piece = os.read(descriptor, 1 << 20)
        if not piece:
            return b""
        received += piece
    return received


def answer_questions(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """The child's side: answer line after line until the input closes.

    A question that takes longer than its `timeout` ends the process, though nobody asks any more.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what is printed goes to the log
    for line in sys.stdin:
        question = json.loads(line)
        watch = threading.Timer(float(question["timeout"]) + _LATE, os._exit, (1,))
        watch.daemon = True
        watch.start()
        document = answer(question)
        watch.cancel()
        replies.write(json.dumps(document) + "\n")
        replies.flush()
    return 0
