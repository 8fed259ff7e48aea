from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support_eval import arithmetic, prediction, suite_of

from palmswift.errors import InputError
from palmswift.eval.conversation import Case
from palmswift.eval.gate import Gate
from palmswift.eval.journal import Prediction, RequestError
from palmswift.eval.page import differences, render
from palmswift.eval.report import build_report, csv_text, read_report, write_report

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
    with pytest.raises(InputError):
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


class Page(HTMLParser):
    """Collects what a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize(
    "hostile",
    [
        "</script><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "<!-- --><svg/onload=alert(1)>",
        "{{ 7*7 }}{% raw %}",
        "</p></div></article><h1>PASSED</h1>",
    ],
)
def test_no_text_of_a_suite_or_an_answer_becomes_markup(hostile: str) -> None:
    def page(text: str) -> Page:
        case = Case.model_validate(
            {
                "id": text,
                "messages": [
                    {"role": "system", "content": text},
                    {"role": "user", "content": text},
                ],
                "reference": f"{text} b",
                "tags": [text],
                "assertions": [{"kind": "contains", "value": text}],
            }
        )
        row = prediction(case, f"<think>{text}</think>{text} a", reasoning=text)
        return Page(render(build_report(suite_of(case), [row])))

    attacked, calm = page(hostile), page("calm")
    assert attacked.tags == calm.tags
    assert attacked.handlers == []
    assert hostile in attacked.words


def test_the_page_needs_no_network_and_states_its_counts_and_meaning() -> None:
    suite = suite_of(*CASES, gates=[GATE])
    text = render(build_report(suite, [*rows(9), *rows(0, endpoint="base")], cases_in_suite=50))
    page = Page(text)
    assert page.addresses == []
    assert "url(" not in text
    assert "@import" not in text
    for words in (
        "PASSED",
        "10 cases of the suite's 50",
        "9/10",
        "0/10",
        "not that it generalises",
    ):
        assert words in page.words.replace("\n", " ")


def test_differences_rebuild_both_texts_and_are_left_out_where_they_would_not_help() -> None:
    reference, answer = "周一休诊，请改约周二。", "周一照常休诊，请改约周三。"
    segments = differences(reference, answer)
    assert "".join(s.text for s in segments if s.kind != "delete") == answer
    assert "".join(s.text for s in segments if s.kind != "insert") == reference
    assert differences("一样", "一样") == []
    assert differences("完全不同", "abcdefgh") == []
    assert differences("a" * 3000, "a" * 2999) == []


def test_the_json_is_plain_and_versioned(tmp_path: Path) -> None:
    write_report(build_report(suite_of(*CASES), rows(10)), tmp_path)
    document = json.loads((tmp_path / "evaluation_report.json").read_text(encoding="utf-8"))
    assert document["version"] == 1
    assert document["summaries"][0]["metrics"]["exact_match"]["count"] == 10
