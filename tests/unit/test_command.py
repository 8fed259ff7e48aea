"""Commands end as they promise: one JSON document, known exit codes, no traceback for what users
can mend."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from palmswift.command import Console, Done, make_parser, run
from palmswift.errors import (
    ChildError,
    GateError,
    IncompleteError,
    InputError,
    Problem,
)


def _run(error: BaseException | None = None, argv: Sequence[str] = (), code: int = 0) -> int:
    def body(args: argparse.Namespace, console: Console) -> Done:
        if error is not None:
            raise error
        console.say("result")
        console.note("progress")
        return Done({"名": "值"}, code)

    parser = make_parser("tool.py", "A tool.", "tool.py --data x\ntool.py --json")
    parser.add_argument("--data", action="append")
    return run(parser, body, argv)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (GateError("no"), 1),
        (InputError("wrong"), 2),
        (ChildError("died"), 3),
        (IncompleteError("partly"), 4),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2),
    ],
)
def test_every_way_to_end_has_its_exit_code_and_one_json_document(
    error: BaseException | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(error, ["--json"]) == code
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert ("error" in document) == (error is not None)
    assert "Traceback" not in captured.err


def test_results_go_to_stdout_and_progress_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(code=1) == 1
    assert capsys.readouterr() == ("result\n", "progress\n")
    _run(argv=["--json"])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"名": "值"}
    assert captured.err == "result\nprogress\n"


def test_all_problems_are_told_with_place_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem("is odd", "a.yaml:3", "write 2"), Problem("is missing")]
    _run(InputError("two faults", problems, remedy="mend both"), ["--json"])
    captured = capsys.readouterr()
    assert captured.err == (
        "error: two faults\n  a.yaml:3: is odd\n    -> write 2\n  is missing\n  -> mend both\n"
    )
    assert json.loads(captured.out)["error"] == {
        "kind": "InputError",
        "summary": "two faults",
        "problems": [
            {"where": "a.yaml:3", "what": "is odd", "remedy": "write 2"},
            {"where": "", "what": "is missing", "remedy": ""},
        ],
        "remedy": "mend both",
    }


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        _run(ZeroDivisionError())
    with pytest.raises(FileNotFoundError):
        _run(FileNotFoundError(errno.ENOENT, "No such file", "x"))


def test_all_unknown_options_are_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(argv=["--dta", "x", "--data", "y", "--jsno=1", "z"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: tool.py: not understood",
        "  --dta: is not an option here",
        "    -> did you mean --data?",
        "  --jsno: is not an option here",
        "    -> did you mean --json?",
        "  z: stands alone, without an option before it",
        "  -> tool.py --help shows examples",
    ]


def test_a_mistyped_option_that_was_required_is_told_as_mistyped() -> None:
    parser = make_parser("tool.py", "A tool.", "tool.py --recipe x")
    parser.add_argument("--recipe", required=True)
    with pytest.raises(InputError) as caught:
        parser.parse_args(["--recpe", "x"])
    assert caught.value.problems[0].remedy == "did you mean --recipe?"


def test_help_ends_with_worked_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _run(argv=["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.endswith("examples:\n  tool.py --data x\n  tool.py --json\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_as_ctrl_c_inside_a_command_and_as_before_after_it(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    ended = []

    def body(args: argparse.Namespace, console: Console) -> Done:
        try:
            signal.raise_signal(number)
        finally:
            ended.append("what it began")
        return Done({})

    assert run(make_parser("tool.py", "A tool.", "tool.py"), body, []) == 130
    assert ended == ["what it began"]
    assert signal.getsignal(number) is before


COMMAND = """
import sys
from palmswift.command import Done, make_parser, run
def body(args, console):
    for number in range(100000):
        console.say("损失 ▁▂▃")
    return Done({"text": "损失"})
raise SystemExit(run(make_parser("t", "T.", "t"), body, sys.argv[1:]))
"""


def test_a_reader_that_goes_away_causes_no_complaint() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(60) == 130


def test_text_that_the_terminals_encoding_lacks_is_escaped_and_stays_json() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.replace("100000", "1"), "--json"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert json.loads(done.stdout) == {"text": "损失"}
