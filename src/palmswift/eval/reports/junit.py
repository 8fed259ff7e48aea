"""The evaluation report as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from palmswift.eval.reports.report import CaseResult, EvaluationReport
from palmswift.eval.reports.table import bound_words, gate_words
from palmswift.eval.suites.scoring import ScoredAnswer

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, even escaped."""


def junit_text(report: EvaluationReport) -> str:
    """A test suite an endpoint, a test a case and repeat; the gates are a suite of their own.

    A judged answer that fails is a failure, a request without a reply an error, a case that was
    not asked or has nothing to judge it by is skipped.
    """
    root = ElementTree.Element("testsuites", name=_clean(report.suite))
    for label in report.labels:
        found = [(c, a) for c in report.cases for a in c.answers if a.endpoint == label]
        _suite(root, label, report.created_at, [_answer(c, a) for c, a in found])
    if report.gates:
        _suite(root, "gates", report.created_at, list(_gates(report)))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suite(
    root: ElementTree.Element, name: str, when: str, tests: list[ElementTree.Element]
) -> None:
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=_clean(name),
        timestamp=when[:19],
        tests=str(len(tests)),
        failures=str(sum(test.find("failure") is not None for test in tests)),
        errors=str(sum(test.find("error") is not None for test in tests)),
        skipped=str(sum(test.find("skipped") is not None for test in tests)),
        time=f"{sum(float(test.get('time', '0')) for test in tests):.3f}",
    )
    suite.extend(tests)


def _answer(case: CaseResult, answer: ScoredAnswer) -> ElementTree.Element:
    again = f" #{answer.repeat + 1}" if answer.repeat else ""
    test = ElementTree.Element(
        "testcase",
        classname=_clean(".".join([answer.endpoint, *case.tags[:1]])),
        name=_clean(case.id + again),
        time=f"{answer.seconds or 0:.3f}",
    )
    if answer.state == "error":
        _said(test, "error", answer.reason or "no reply", "")
    elif answer.state == "not_asked" or (answer.passed is None and not answer.undecided):
        _said(test, "skipped", answer.reason or "no assertions: measured, not judged", "")
    elif answer.passed is None:
        broken = [a for a in answer.assertions if a.state == "error"]
        _said(test, "error", f"cannot be judged: {broken[0].kind}: {broken[0].detail}", "")
    elif not answer.passed:
        failed = [f"{a.kind}: {a.expected}" for a in answer.assertions if a.state == "failed"]
        text = "\n".join(
            [
                f"question: {case.messages[-1].content}",
                f"reference: {case.reference or '-'}",
                f"answer: {answer.answer if answer.answer is not None else '-'}",
                *(f"not met: {line}" for line in failed),
            ]
        )
        _said(test, "failure", "; ".join(failed) or answer.reason or "failed", text)
    return test


def _gates(report: EvaluationReport) -> Iterator[ElementTree.Element]:
    for gate in report.gates:
        name = f"{gate.endpoint}: {bound_words(gate.gate)}"
        test = ElementTree.Element("testcase", classname="gates", name=_clean(name), time="0.000")
        if gate.state == "failed":
            _said(test, "failure", gate_words(gate), "")
        elif gate.state == "not_checked":
            _said(test, "skipped", gate_words(gate), "")
        yield test


def _said(test: ElementTree.Element, kind: str, message: str, text: str) -> None:
    element = ElementTree.SubElement(test, kind, message=_clean(message))
    if text:
        element.text = _clean(text)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
