from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pandas
import pytest
from support_eval import ROOT, arithmetic, prediction, suite_of

from palmswift.errors import InputError
from palmswift.eval.asking.conversation import Case
from palmswift.eval.asking.journal import Journal, Prediction, RequestError
from palmswift.eval.reports.junit import junit_text
from palmswift.eval.reports.markdown import markdown_text
from palmswift.eval.reports.report import build_report, read_report
from palmswift.eval.reports.report_files import csv_text, write_report
from palmswift.eval.schema import report_schema
from palmswift.eval.suites.several import parts_of
from palmswift.eval.suites.suite import Suite
from palmswift.eval.verdicts.gate import Gate

CASES = arithmetic(10)
GATE = Gate(metric="exact_match", tag="sums", endpoint="tuned", min=0.9)
ERROR = RequestError(kind="status", status=500, message="HTTP 500")


def rows(right: int, *, endpoint: str = "tuned", errors: int = 0) -> list[Prediction]:
    """Answers to all cases: first the right ones, then wrong ones, then errors."""
    made = []
    for n, case in enumerate(CASES):
        if n >= len(CASES) - errors:
            made.append(prediction(case, None, endpoint=endpoint, error=ERROR))
        else:
            made.append(prediction(case, str(n + 1) if n < right else "?", endpoint=endpoint))
    return made


def test_a_gate_holds_from_its_bound_on() -> None:
    suite = suite_of(*CASES, gates=[GATE])
    assert build_report(suite, rows(9)).verdict == "passed"
    assert build_report(suite, rows(8)).verdict == "failed"


def test_errors_are_in_their_own_rate_and_make_the_report_incomplete() -> None:
    report = build_report(suite_of(*CASES, gates=[GATE]), rows(8, errors=2))
    summary = report.summary("tuned")
    assert (summary.answered, summary.errors, summary.not_asked) == (8, 2, 0)
    exact, errors = summary.metrics["exact_match"], summary.metrics["error_rate"]
    assert (exact.value, exact.count, exact.n) == (1.0, 8, 8)
    assert (errors.value, errors.count, errors.n) == (0.2, 2, 10)
    assert (report.verdict, report.unanswered) == ("incomplete", 2)


def test_a_gate_that_cannot_be_measured_fails_and_one_of_an_untested_label_is_unchecked() -> None:
    case = Case(id="a", question="q", tags=["free"])
    suite = suite_of(case, gates=[Gate(metric="exact_match", tag="free", endpoint="tuned", min=0)])
    assert build_report(suite, [prediction(case, "x")]).gates[0].state == "failed"
    report = build_report(suite, [prediction(case, "x", endpoint="other")])
    assert (report.gates[0].state, report.verdict) == ("not_checked", "no_gates")


def test_a_gate_without_a_label_is_for_each_endpoint_and_base_comes_first() -> None:
    suite = suite_of(*CASES, gates=[Gate(metric="error_rate", max=0)])
    report = build_report(suite, [*rows(9), *rows(0, endpoint="base")])
    assert report.labels == ["base", "tuned"]
    assert [gate.endpoint for gate in report.gates] == ["base", "tuned"]


def test_weights_count_in_the_pass_rate() -> None:
    heavy = CASES[0].model_copy(update={"weight": 3.0})
    report = build_report(
        suite_of(heavy, CASES[1]), [prediction(heavy, "1"), prediction(CASES[1], "?")]
    )
    rate = report.summary("tuned").metrics["pass_rate"]
    assert (rate.value, rate.count, rate.n) == (0.75, 1, 2)


def test_the_report_comes_back_from_its_file(tmp_path: Path) -> None:
    report = build_report(suite_of(*CASES, gates=[GATE]), rows(9))
    write_report(report, tmp_path)
    assert read_report(tmp_path / "evaluation_report.json") == report
    (tmp_path / "evaluation_report.json").write_text('{"version": 9}')
    with pytest.raises(InputError, match="version 9; this palmswift reads up to 2"):
        read_report(tmp_path / "evaluation_report.json")
    (tmp_path / "evaluation_report.json").write_text('{"version": 2}')
    with pytest.raises(InputError, match="not an evaluation report"):
        read_report(tmp_path / "evaluation_report.json")


def test_the_csv_has_a_line_an_answer_opens_in_excel_and_runs_no_formula() -> None:
    report = build_report(
        suite_of(*CASES[:2]),
        [prediction(CASES[0], '=HYPERLINK("http://x")'), prediction(CASES[1], "好\n的, 行")],
    )
    text = csv_text(report)
    assert text.startswith("\ufeff")
    table = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert [line["answer"] for line in table] == ['\'=HYPERLINK("http://x")', "好\n的, 行"]


def test_the_json_is_plain_and_versioned(tmp_path: Path) -> None:
    write_report(build_report(suite_of(*CASES), rows(10)), tmp_path)
    document = json.loads((tmp_path / "evaluation_report.json").read_text(encoding="utf-8"))
    assert document["version"] == 2
    assert document["summaries"][0]["metrics"]["exact_match"]["count"] == 10


def test_a_report_of_version_1_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "evaluation_report.json"
    shutil.copy(Path(__file__).parents[3] / "data" / "report_v1.json", path)
    report = read_report(path)
    assert report.version == 1
    answers = [answer for case in report.cases for answer in case.answers]
    assert {answer.exact for answer in answers} == {True, False}
    assert all(answer.chrf is not None for answer in answers)
    assert report.summary("tuned").metrics["exact_match"].count == 1


def test_the_published_schema_is_that_of_the_reports_and_holds_for_one(tmp_path: Path) -> None:
    schema = json.loads(report_schema())
    assert (ROOT / "eval" / "report.schema.json").read_text(encoding="utf-8") == report_schema()
    write_report(build_report(suite_of(*CASES, gates=[GATE]), rows(9)), tmp_path)
    document = json.loads((tmp_path / "evaluation_report.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    document["invented"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_several_suites_are_summed_up_apart_and_gated_by_their_own_cases() -> None:
    first = Suite(name="one", cases=CASES[:5], gates=[Gate(metric="exact_match", min=1.0)])
    second = Suite(name="two", cases=CASES, gates=[Gate(metric="exact_match", max=0.6)])
    parts = parts_of([first, second])
    assert [case.id for case in parts[1].cases][:6] == [
        *(f"two/sum-{n}" for n in range(5)),
        "sum-5",
    ]
    answers = [
        prediction(case, case.reference if n < 5 else "?")
        for part in parts
        for n, case in enumerate(part.cases)
    ]
    report = build_report(parts, answers)
    by_suite = {s.suite: s.metrics["exact_match"].count for s in report.summaries if s.tag is None}
    assert by_suite == {None: 10, "one": 5, "two": 5}
    assert [(gate.suite, gate.state) for gate in report.gates] == [
        ("one", "passed"),
        ("two", "passed"),
    ]
    assert report.unanswered == 0
    with pytest.raises(InputError, match="names"):
        parts_of([first, first])


def test_results_open_in_pandas_by_one_line(tmp_path: Path) -> None:
    write_report(build_report(suite_of(*CASES), rows(7)), tmp_path)
    table = pandas.read_csv(tmp_path / "evaluation_report.csv")
    assert table.groupby("endpoint").exact_match.mean().to_dict() == {"tuned": 0.7}
    with Journal(tmp_path / "predictions.jsonl") as journal:
        for row in rows(7):
            journal.append(row)
    answers = pandas.read_json(tmp_path / "predictions.jsonl", lines=True)
    assert list(answers.case) == [case.id for case in CASES]


def test_the_junit_file_counts_failures_errors_and_what_was_not_judged() -> None:
    cases = [*CASES, Case(id="free", question="\x01?", tags=["free"])]
    answers = [*rows(7, errors=1), prediction(cases[-1], "any")]
    text = junit_text(build_report(suite_of(*cases, gates=[GATE]), answers))
    root = ElementTree.fromstring(text)
    counts = {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "12", "failures": "3", "errors": "1", "skipped": "1"}
    answers_of, gates = root.findall("testsuite")
    assert answers_of.get("name") == "tuned"
    assert len(answers_of.findall("testcase/failure")) == 2
    failure = gates.find("testcase/failure")
    assert failure is not None and failure.get("message") == "77.8% of 9"
    [broken] = [t for t in answers_of.findall("testcase") if t.find("error") is not None]
    assert broken.get("name") == "sum-9"


def test_the_junit_file_is_valid_under_the_schema_that_jenkins_checks_by() -> None:
    """The xUnit plugin's rules: names, counts that add up, times with a dot, no unknown child."""
    root = ElementTree.fromstring(
        junit_text(build_report(suite_of(*CASES, gates=[GATE]), rows(5, errors=2)))
    )
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite"
        assert {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"} <= {
            *suite.keys()
        }
        tests = suite.findall("testcase")
        assert len(tests) == len(suite) == int(suite.attrib["tests"])
        for test in tests:
            assert {"classname", "name", "time"} == {*test.keys()}
            assert {child.tag for child in test} <= {"failure", "error", "skipped"}
            assert len(test) <= 1


def test_the_markdown_says_the_verdict_and_lets_no_answer_write_markup_or_call_people() -> None:
    hostile = "@everyone <img src=x> | [link](http://x) `code` **b**"
    case = Case(id="h", question=hostile, reference="1", assertions=CASES[0].assertions)
    suite = suite_of(*CASES, case, gates=[GATE])
    answers = [
        *rows(10, endpoint="base"),
        *rows(1),
        prediction(case, "1", endpoint="base"),
        prediction(case, hostile),
    ]
    text = markdown_text(build_report(suite, answers))
    assert "### ❌ HURT" in text
    assert "10 cases got worse at tuned, the first 5" in text
    assert "exact\\_match of sums" in text
    hostile_lines = [line for line in text.splitlines() if "everyone" in line]
    for line in hostile_lines:
        assert "@everyone" not in line
        assert "<img" not in line.replace("\\<img", "")
    single = markdown_text(build_report(suite_of(*CASES), rows(9)))
    assert "| all | Exact | 90.0% (9/10) |" in single
