"""The closing screen is aligned, and in colour on a terminal alone."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from support_runs import make_run

from palmswift.command import Console
from palmswift.eval.asking.conversation import Case
from palmswift.eval.reports.report import EvaluationReport, build_report
from palmswift.eval.suites.suite import Suite
from palmswift.eval.verdicts.gate import Gate
from palmswift.launchers.run_folder import RunFolder
from palmswift.screen import Row, closing_rows, show_closing


def _finished(folder: Path) -> RunFolder:
    run = make_run(folder)
    with run.stage("model") as facts:
        facts["model"] = "Qwen/Qwen3-0.6B"
    with run.stage("data") as facts:
        facts.update(train=10, val=2, rejected=1)
    with run.stage("train") as facts:
        facts["steps"] = 7
    run.state.stages["train"].seconds = 3725.0
    return run


def _report() -> EvaluationReport:
    suite = Suite(
        name="s",
        cases=[Case(id="a", question="q", reference="r")],
        gates=[Gate(metric="exact_match", endpoint="tuned", min=1.0)],
    )
    return build_report(suite, [], ["base", "tuned"])


def _row(rows: list[Row], label: str) -> Row:
    return next(row for row in rows if row.label == label)


def test_a_hub_model_is_shown_by_its_id_and_hours_as_hours(tmp_path: Path) -> None:
    rows = closing_rows(_finished(tmp_path), _report())
    assert _row(rows, "model").text == "Qwen/Qwen3-0.6B"
    assert _row(rows, "time").text == "1 h 2 min in all"


def test_a_run_without_its_training_log_still_has_a_screen(tmp_path: Path) -> None:
    assert _row(closing_rows(_finished(tmp_path), _report()), "loss").text == "7 steps"


def test_a_failed_gate_and_open_requests_stand_out(tmp_path: Path) -> None:
    rows = closing_rows(_finished(tmp_path), _report())
    assert _row(rows, "gate").style == "bold red"
    assert _row(rows, "open").text.startswith("2 requests have no reply")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [_Terminal(), io.StringIO()])
def test_colour_is_for_terminals_and_the_words_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    show_closing(_finished(tmp_path), _report(), Console(json_output=False))
    text = stream.getvalue()
    assert ("\x1b[" in text) == stream.isatty()
    assert "python deploy/serve.py --run tiny-" in text


def test_sentences_are_broken_between_words_and_paths_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence, path = "eleven questions were better " * 5, "runs/" + "long/" * 30
    monkeypatch.setattr(
        "palmswift.screen.closing_rows",
        lambda *_: [Row("verdict", sentence, prose=True), Row("report", path)],
    )
    monkeypatch.setattr(sys, "stdout", stream := _Terminal())
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    show_closing(_finished(tmp_path), _report(), Console(json_output=False))
    lines = stream.getvalue().splitlines()
    assert any(line.endswith(path) for line in lines)
    told = [line[11:] for line in lines if "questions" in line or "better" in line]
    assert " ".join(told).split() == sentence.split()
    assert len(told) > 1
    assert all(len(line) <= 49 for line in told)
