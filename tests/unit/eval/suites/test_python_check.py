from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from palmswift.eval.suites.assertions import Python
from palmswift.eval.suites.checking import Subject, check
from palmswift.eval.suites.python_check import Functions

CODE = """
import os, sys
print("noise")

def polite(answer, case):
    return "请" in answer or "please" in answer

def share(answer, case):
    return len(answer) / case["args"]["most"]

def told(answer, case):
    return False, f"{case['id']} has {len(case['references'])} references"

def broken(answer, case):
    return 1 / 0

def leaves(answer, case):
    sys.exit(3)

def dies(answer, case):
    os._exit(7)

def hangs(answer, case):
    while True:
        pass

def odd(answer, case):
    return "yes"
"""


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Functions]:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "mine.py").write_text(CODE, encoding="utf-8")
    (folder / "bad.py").write_text("def f(:\n", encoding="utf-8")
    with Functions(folder) as functions:
        yield functions


@pytest.mark.parametrize(
    ("function", "answer", "state", "detail"),
    [
        ("mine.py:polite", "请坐", "passed", None),
        ("mine.py:polite", "坐", "failed", None),
        ("mine.py:polite", "sit down please", "passed", None),
        ("mine.py:polite", "sit", "failed", None),
        ("mine.py:share", "12345", "passed", "0.5"),
        ("mine.py:share", "1234", "failed", "0.4"),
        ("mine.py:told", "", "failed", "c has 1 references"),
        ("mine.py:broken", "", "error", "mine.py:15: ZeroDivisionError: division by zero"),
        ("mine.py:leaves", "", "error", "SystemExit"),
        ("mine.py:dies", "", "error", "ended (exit code 7)"),
        ("mine.py:odd", "", "error", "must give True, False or a score"),
        ("mine.py:gone", "", "error", "no function gone"),
        ("gone.py:check", "", "error", "no file"),
        ("bad.py:f", "", "error", "bad.py:1: SyntaxError"),
    ],
)
def test_a_function_of_ones_own_judges_or_its_fault_is_told(
    call: Functions, function: str, answer: str, state: str, detail: str | None
) -> None:
    assertion = Python.model_validate(
        {"kind": "python", "function": function, "args": {"most": 10}}
    )
    result = check(assertion, Subject(answer, ["r"], case="c"), call)
    assert result.state == state
    assert detail is None or detail in (result.detail or "")


def test_a_function_that_hangs_is_an_error_and_its_process_is_gone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE, encoding="utf-8")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    fields: dict[str, Any] = {"kind": "python", "function": "mine.py:hangs", "timeout": 1}
    with Functions(tmp_path) as functions:
        result = check(Python.model_validate(fields), Subject(""), functions)
        assert (result.state, "gave no answer within 1 s" in (result.detail or "")) == (
            "error",
            True,
        )
        fields["function"] = "mine.py:polite"
        fields["timeout"] = 10
        assert check(Python.model_validate(fields), Subject("请"), functions).passed
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before
