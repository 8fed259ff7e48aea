"""Files that lm-eval and EvalScope wrote, and logs that inspect_ai reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_eval import ROOT, arithmetic, prediction, suite_of

from palmswift.errors import InputError
from palmswift.eval.asking.conversation import Case
from palmswift.eval.asking.journal import RequestError
from palmswift.eval.compare import compared
from palmswift.eval.reports.foreign import as_predictions, kind_of, read_graded
from palmswift.eval.reports.inspect_log import inspect_log, write_inspect_logs
from palmswift.eval.reports.report import build_report
from palmswift.eval.suites.suite import Suite

FOLDER = ROOT / "tests" / "data" / "foreign"
[LM_EVAL] = FOLDER.glob("samples_sums_*.jsonl")
REVIEWS, PREDICTIONS = FOLDER / "evalscope_reviews.jsonl", FOLDER / "evalscope_predictions.jsonl"


def test_samples_of_lm_eval_are_read_as_it_graded_them() -> None:
    assert kind_of(LM_EVAL) == "lm_eval"
    found = read_graded(LM_EVAL, "base")
    assert found.suite.name == "sums"
    assert [case.turns[-1].content for case in found.suite.cases] == ["1+1?", "2+1?", "3+1?"]
    assert [case.reference for case in found.suite.cases] == ["2", "3", "4"]
    assert [a.passed for a in found.answers] == [True, True, False]
    assert [a.answer for a in found.answers] == ["2", "3", "5"]


def test_reviews_of_evalscope_are_read_as_it_graded_them() -> None:
    assert kind_of(REVIEWS) == "evalscope_review"
    found = read_graded(REVIEWS, "base")
    grades = {
        case.reference: a.score for case, a in zip(found.suite.cases, found.answers, strict=True)
    }
    assert grades == {"2": 1.0, "3": 1.0, "4": 0.0}
    assert found.suite.cases[0].turns[0].role == "system"


def test_predictions_of_evalscope_are_graded_by_our_suite() -> None:
    assert kind_of(PREDICTIONS) == "evalscope_prediction"
    cases = [
        Case.model_validate(
            {**case.model_dump(exclude={"messages"}), "assertions": case.assertions}
        )
        for case in arithmetic(4)[1:]
    ]
    suite = suite_of(*(case.with_system("be short") for case in cases))
    rows = as_predictions(PREDICTIONS, "tuned", [suite])
    report = build_report(suite, rows)
    assert report.summary("tuned").metrics["exact_match"].count == 2
    with pytest.raises(InputError, match="none of its questions"):
        as_predictions(PREDICTIONS, "tuned", [suite_of(*cases)])


def test_two_runs_of_lm_eval_are_compared_case_by_case(tmp_path: Path) -> None:
    template = json.loads(LM_EVAL.read_text(encoding="utf-8").splitlines()[0])
    for name, right in (("base", 10), ("tuned", 30)):
        rows = [
            {**template, "doc_id": n, "doc_hash": f"{n:064x}", "exact_match": float(n < right)}
            for n in range(40)
        ]
        (tmp_path / name).mkdir()
        path = tmp_path / name / "samples_sums_2026.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = compared(*(tmp_path / n / "samples_sums_2026.jsonl" for n in ("base", "tuned")))
    [comparison] = report.comparisons[0].comparisons
    assert (report.comparisons[0].word, comparison.suite) == ("helped", "sums")
    assert (comparison.cases, comparison.gained, comparison.lost) == (40, 20, 0)


def test_a_grade_between_is_a_score_and_one_outside_is_refused(tmp_path: Path) -> None:
    row = json.loads(LM_EVAL.read_text(encoding="utf-8").splitlines()[0])
    path = tmp_path / "samples_x.jsonl"
    path.write_text(json.dumps({**row, "exact_match": 0.4}) + "\n", encoding="utf-8")
    [answer] = read_graded(path, "a").answers
    assert (answer.score, answer.passed) == (0.4, None)
    path.write_text(json.dumps({**row, "exact_match": 12.5}) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="not between 0 and 1"):
        read_graded(path, "a")


def test_only_the_first_filter_of_lm_eval_is_read(tmp_path: Path) -> None:
    row = json.loads(LM_EVAL.read_text(encoding="utf-8").splitlines()[0])
    rows = [{**row, "filter": "strict-match"}, {**row, "filter": "flexible-extract"}]
    path = tmp_path / "samples_gsm8k_2026.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    found = read_graded(path, "a")
    assert len(found.answers) == 1
    assert "flexible-extract" in found.notes[0]
    assert found.suite.name == "gsm8k"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no row"),
        ('{"a": 1}\n', "not known: its rows have a"),
        ("[1]\n", "not a JSON object"),
        ("{\n", "not JSON"),
    ],
)
def test_files_of_another_kind_are_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        kind_of(path)


def test_a_log_for_inspect_has_every_answer_with_its_grade(tmp_path: Path) -> None:
    """What inspect_ai's reader took is kept in tests/data/foreign/inspect_log.json."""
    cases = [
        *arithmetic(2),
        Case(id="free", question="?", reference="r"),
        Case(id="e", question="!"),
    ]
    rows = [
        prediction(cases[0], "<think>so</think>1", reasoning="so"),
        prediction(cases[1], "?", finish_reason="length"),
        prediction(cases[2], "any"),
        prediction(
            cases[3], None, error=RequestError(kind="status", status=500, message="HTTP 500")
        ),
    ]
    report = build_report(Suite(name="mine", cases=cases), rows)
    log = inspect_log(report, "tuned")
    assert log["status"] == "error"
    assert [s.get("scores", {}).get("palmswift", {}).get("value") for s in log["samples"]] == [
        "C",
        "I",
        "N",
        None,
    ]
    assert log["samples"][1]["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert log["samples"][0]["messages"][-1]["content"][0] == {
        "type": "reasoning",
        "reasoning": "so",
    }
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 0.5
    [path] = write_inspect_logs(report, tmp_path)
    written = json.loads(path.read_text(encoding="utf-8"))
    golden = json.loads((FOLDER / "inspect_log.json").read_text(encoding="utf-8"))
    for document in (written, golden):
        document["eval"]["created"] = ""
    assert written == golden
