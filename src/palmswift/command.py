"""How every palmswift command starts and ends: arguments, `--json`, errors, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from palmswift.errors import INTERRUPTED, InputError, PalmswiftError, Problem

_OF_THE_MACHINE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)
"""Errors that a user can mend wherever they come up: disk full, not allowed, an impossible path."""


class Done(NamedTuple):
    """What a command leaves: the document that `--json` prints, and its exit code."""

    document: dict[str, Any]
    exit_code: int = 0


class Console:
    """Results go to stdout, progress to stderr; under `--json` stdout has the document alone."""

    def __init__(self, *, json_output: bool) -> None:
        self.json_output = json_output

    def say(self, text: str = "") -> None:
        """Print a line of the command's result."""
        print(text, file=sys.stderr if self.json_output else sys.stdout, flush=True)

    def note(self, text: str = "") -> None:
        """Print a line about what is going on."""
        print(text, file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments as the other errors are said (and as JSON)."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}", remedy=f"{self.prog} --help shows examples")

    # argparse declares this with overloads, of which the callers here use the first alone.
    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """As argparse's, but all options that are not known are told, each with the nearest."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            found, unknown = self.parse_known_args(words, namespace)
        except InputError as error:  # a required option is missing: perhaps it was mistyped
            known = self._known_options()
            mistyped = [word for word in words if word[:2] == "--" and _name(word) not in known]
            raise InputError(error.summary, self._told(mistyped), remedy=error.remedy) from None
        if unknown:
            raise InputError(
                f"{self.prog}: not understood",
                self._told(unknown),
                remedy=f"{self.prog} --help shows examples",
            )
        return found

    def _told(self, words: Sequence[str]) -> list[Problem]:
        """A problem for each word, but not for what was meant as the value of an option."""
        known = self._known_options()
        problems = []
        for before, word in zip(["", *words], words, strict=False):
            if word.startswith("-"):
                like = _nearest(_name(word), known)
                problems.append(Problem("is not an option here", _name(word), like))
            elif not before.startswith("-") or "=" in before:
                problems.append(Problem("stands alone, without an option before it", word))
        return problems

    def _known_options(self) -> list[str]:
        known = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    known += parser._option_string_actions
        return known


def _name(word: str) -> str:
    return word.partition("=")[0]


def _nearest(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    like = get_close_matches(name, known, n=1)
    return f"did you mean {like[0]}?" if like else ""


def make_parser(prog: str, summary: str, examples: str) -> argparse.ArgumentParser:
    """An argument parser with `--json` and worked examples at the end of its help.

    `examples` is the text after "examples:", one command a line.
    """
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    parser = _Parser(
        prog=prog,
        description=summary,
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on stdout, all else on stderr"
    )
    return parser


def _raise_interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    if signum == signal.SIGHUP:
        leave_terminal()
    raise KeyboardInterrupt


def leave_terminal() -> None:
    """Write to nowhere what went to a terminal, which has been closed: writing would fail."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode):
                os.dup2(nowhere, number)
    os.close(nowhere)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal are as Ctrl-C inside the block."""
    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread: the caller owns the signals
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup sets it to be ignored
                before[number] = signal.signal(number, _raise_interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace, Console], Done],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, run `body`, print its document under `--json`, and give the exit code.

    SIGTERM and a closed terminal are treated as Ctrl-C, so that context managers end what they
    began; `nohup`, which has SIGHUP ignored, keeps its meaning. Operating-system errors that no
    code can help (disk full, no permission) are the user's to mend, and so are input errors.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    console = Console(json_output="--json" in words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Chinese on a terminal of another encoding is shown as escapes, which JSON reads too.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _signals_interrupt():
            done = body(parser.parse_args(words), console)
        if console.json_output:
            _print_json(done.document)
    except BrokenPipeError:
        # whoever read our output (`head`) has gone; closing stdout at exit would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except PalmswiftError as error:
        return _tell(error, console)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _tell(InputError(f"{where}{error.strerror}"), console)
    except KeyboardInterrupt:
        console.note("interrupted")
        if console.json_output:
            _print_json({"error": {"kind": "Interrupted", "summary": "interrupted"}})
        return INTERRUPTED
    return done.exit_code


def _tell(error: PalmswiftError, console: Console) -> int:
    """Print the error; its exit code."""
    console.note(f"error: {error}")
    if console.json_output:
        _print_json(_error_document(error))
    return error.exit_code


def _error_document(error: PalmswiftError) -> dict[str, Any]:
    problems = [{"where": p.where, "what": p.what, "remedy": p.remedy} for p in error.problems]
    return {
        "error": {
            "kind": type(error).__name__,
            "summary": error.summary,
            "problems": problems,
            "remedy": error.remedy,
        }
    }


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=2, default=str), flush=True)
