"""eval/compare.py and several-model runs as real processes: verdicts, files, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support_eval import arithmetic, call, command, prediction, sums, write_rows, write_suite

from palmswift.eval.asking.journal import Journal, Prediction, RequestError
from palmswift.eval.fake.server import FakeServer, Plan
from palmswift.eval.reports.report import read_report

COUNT = 60
CASES = arithmetic(COUNT)
ERROR = RequestError(kind="status", status=500, message="HTTP 500")


def journal(path: Path, right: int, *, label: str = "tuned", errors: int = 0) -> Path:
    """Predictions of all cases: the first `right` right, the last `errors` without a reply."""
    rows: list[Prediction] = []
    for n, case in enumerate(CASES):
        if n >= COUNT - errors:
            rows.append(prediction(case, None, endpoint=label, error=ERROR))
        else:
            rows.append(prediction(case, str(n + 1) if n < right else "?", endpoint=label))
    with Journal(path) as out:
        for row in rows:
            out.append(row)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite and predictions that are right in 20, 22, 45 and 45 (2 lack) cases."""
    folder = tmp_path_factory.mktemp("compare")
    write_suite(folder / "s.yaml", COUNT, gate=0.0)
    for name, right, errors in (("p20", 20, 0), ("p22", 22, 0), ("p45", 45, 0), ("lack", 45, 2)):
        journal(folder / f"{name}.jsonl", right, errors=errors)
    (folder / "broken.jsonl").write_text('{"what": 1}\n', encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("base", "tuned", "more", "code", "said"),
    [
        ("p20", "p45", [], 0, "HELPED"),
        ("p20", "p22", [], 0, "NO DIFFERENCE SHOWN"),
        ("p20", "p22", ["--require", "helped"], 1, "NO DIFFERENCE SHOWN"),
        ("p45", "p20", [], 1, "HURT"),
        ("p20", "lack", [], 4, "HELPED"),
        ("p20", "broken", [], 2, "not known"),
        ("p20", "absent", [], 2, "no such file"),
        ("p45", "p20", ["--lang", "zh"], 1, "变差了"),
    ],
)
def test_the_exit_code_and_the_word_say_what_was_found(
    files: Path, base: str, tuned: str, more: list[str], code: int, said: str
) -> None:
    words = (files / f"{base}.jsonl", files / f"{tuned}.jsonl", "--suite", files / "s.yaml")
    done = call("compare", *words, *more)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_predictions_need_their_suite_and_a_report_does_not(files: Path, tmp_path: Path) -> None:
    pair = (files / "p20.jsonl", files / "p45.jsonl")
    alone = call("compare", *pair)
    assert (alone.returncode, "--suite S.yaml" in alone.stderr) == (2, True)
    out = tmp_path / "out"
    done = call("compare", *pair, "--suite", files / "s.yaml", "--out", out, "--json")
    document = json.loads(done.stdout)
    assert document["verdict"] == "helped"
    [again] = [json.loads(call("compare", out, "--json").stdout)]
    assert again["comparisons"][0]["comparisons"] == document["comparisons"][0]["comparisons"]
    assert {path.suffix for path in out.iterdir()} == {".json", ".csv", ".html", ".md", ".xml"}


def test_trained_questions_are_told_apart(files: Path, tmp_path: Path) -> None:
    known = [
        {
            "messages": [
                {"role": "user", "content": f"{n}+1?"},
                {"role": "assistant", "content": "x"},
            ]
        }
        for n in range(20, 45)
    ]
    training = write_rows(tmp_path / "train.jsonl", known)
    done = call(
        "compare",
        files / "p20.jsonl",
        files / "p45.jsonl",
        "--suite",
        files / "s.yaml",
        "--training",
        training,
        "--json",
    )
    document = json.loads(done.stdout)
    assert document["headline"].startswith("HELPED on all questions; without those")
    assert document["contamination"]["question"] == 25
    assert document["comparisons"][0]["without_leaked"]["word"] == "no_difference"


def test_which_two_of_many_is_asked_for(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "s.yaml", COUNT, gate=0.0)
    for label, right in (("one", 10), ("two", 40), ("three", 20)):
        journal(tmp_path / "all.jsonl", right, label=label)
    words = (tmp_path / "all.jsonl", "--suite", suite)
    unclear = call("compare", *words)
    assert unclear.returncode == 2
    assert "there are one, two, three" in unclear.stderr
    done = call("compare", *words, "--labels", "one", "two", "--json")
    found = json.loads(done.stdout)["comparisons"][0]
    assert (found["base_label"], found["tuned_label"], found["word"]) == ("one", "two", "helped")
    wrong = call("compare", *words, "--labels", "one", "four")
    assert (wrong.returncode, "no answers of 'four'" in wrong.stderr) == (2, True)


def answering(right: int) -> dict[str, Plan]:
    """A model that knows the first `right` sums."""
    return {
        question: Plan(answer if n < right else "?")
        for n, (question, answer) in enumerate(sums(COUNT).items())
    }


def run_both(tmp_path: Path, base: int, tuned: int, *more: str | Path) -> tuple[Any, int, int]:
    """eval/run.py against two models; its process, and the requests of both."""
    suite = tmp_path / "s.yaml"
    if not suite.exists():
        write_suite(suite, COUNT, gate=0.0)
    with FakeServer(answering(base)) as one, FakeServer(answering(tuned)) as two:
        done = call(
            "run",
            "--suite",
            suite,
            "--out",
            tmp_path / "out",
            "--no-fingerprint",
            "--endpoint",
            f"base={one.base_url}",
            "--endpoint",
            f"tuned={two.base_url}",
            *more,
        )
        return done, len(one.requests), len(two.requests)


def test_a_run_of_two_models_ends_with_the_verdict_in_every_file(tmp_path: Path) -> None:
    done, _, _ = run_both(tmp_path, 20, 50, "--inspect-log")
    assert done.returncode == 0, done.stderr
    assert "HELPED" in done.stdout
    out = tmp_path / "out"
    report = read_report(out / "evaluation_report.json")
    assert [verdict.word for verdict in report.comparisons] == ["helped"]
    assert "✅ HELPED" in (out / "evaluation_summary.md").read_text(encoding="utf-8")
    assert len(list((out / "inspect").glob("*.json"))) == 2


def test_a_sequential_run_stops_once_it_is_decided(tmp_path: Path) -> None:
    done, base, tuned = run_both(tmp_path, 0, COUNT, "--sequential")
    assert done.returncode == 0, done.stderr
    assert "decided after 20 cases" in done.stderr
    assert base < COUNT and tuned < COUNT
    report = read_report(tmp_path / "out" / "evaluation_report.json")
    assert report.comparisons[0].word == "helped"
    same = tmp_path / "same"
    same.mkdir()
    done, base, _ = run_both(same, 30, 30, "--sequential")
    assert base >= COUNT, "nothing was decided, so all was asked"
    assert "NO DIFFERENCE SHOWN" in done.stdout


def test_a_quick_look_says_so_and_gives_no_verdict(tmp_path: Path) -> None:
    done, _, _ = run_both(tmp_path, 0, COUNT, "--max-samples", "12")
    assert "QUICK LOOK, NO VERDICT" in done.stdout
    assert "a quick look at 12 of 60 cases" in done.stdout


def test_a_pull_requests_summary_is_appended_where_github_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run_both(tmp_path, 20, 50)
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n## sums")
    assert "✅ HELPED" in text


def test_several_suites_are_asked_in_one_run(tmp_path: Path) -> None:
    general = {
        "name": "general",
        "role": "general",
        "cases": [
            {
                "id": f"g{n}",
                "question": f"{n}+1?",
                "assertions": [{"kind": "regex", "pattern": "[0-9]"}],
            }
            for n in range(30)
        ],
    }
    (tmp_path / "g.yaml").write_text(json.dumps(general), encoding="utf-8")
    done, _, _ = run_both(tmp_path, 50, 20, "--suite", tmp_path / "g.yaml")
    report = read_report(tmp_path / "out" / "evaluation_report.json")
    words = {c.suite: c.word for c in report.comparisons[0].comparisons if c.tag is None}
    assert words["sums"] == "hurt"
    assert words["general"] in ("hurt", "unsafe")
    assert [suite.role for suite in report.suites] == ["task", "general"]
    assert done.returncode == 0, "gates decide the exit code of a run; the verdict that of compare"


def test_an_interrupted_comparison_of_served_models_is_130(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "s.yaml", COUNT)
    with FakeServer(default=Plan("1", delay=0.2)) as server:
        words = command(
            "run", "--suite", suite, "--endpoint", server.base_url, "--out", tmp_path / "o"
        )
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(server.requests) < 12 and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=30) == 130
