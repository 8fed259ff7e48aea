"""The whole job: stages in one folder, taken up where they stopped, and one screen at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support_deploy import REPOSITORY, processes_of
from support_runs import StandIn, prepare_project, write_project_recipe

from palmswift import pipeline
from palmswift.launchers.run_folder import RunFolder, find_run


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, in a project at `tmp_path` that has the recipe `mine`."""
    stand_in = prepare_project(tmp_path, monkeypatch)
    write_project_recipe(tmp_path)
    return stand_in


TUNED_ALONE = ["--set", "eval.baseline=false"]
"""One server instead of two, where the base's answers do not matter."""


def _latest() -> RunFolder:
    return find_run("latest")


def _commands(swift: StandIn) -> list[str]:
    return [call["command"] for call in swift.calls]


def test_all_stages_end_with_one_screen_that_says_how_it_went_and_how_to_go_on(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.main(["--recipe", "mine"]) == 0
    run = _latest()
    name = run.path.name
    seconds = sum(stage.seconds or 0 for stage in run.state.stages.values())
    shown = capsys.readouterr().out.splitlines()
    sentences = [line for line in shown if " small: " in line]
    assert len(sentences) == 2, "what was found, and what so few cases can show"
    assert [line for line in shown if line not in sentences] == [
        "",
        "mine: a recipe for tests",
        "  model    model",
        "  rows     6 trained on, 2 held out, 0 rejected",
        "  loss     4.000 █▃▂▁ 1.000 in 4 steps",
        "  answers                 base  tuned",
        "           known, exact    0/2    2/2",
        "  verdict  NO DIFFERENCE SHOWN",
        "           No question stands in train.jsonl.",
        "  gates    all passed",
        f"  time     {round(seconds)} s in all",
        f"  report   runs/{name}/eval/evaluation_report.html",
        f"           runs/{name}/data/report.html (every row that was left out, and why)",
        f"  curves   tensorboard --logdir runs/{name}/train",
        f"  serve    python deploy/serve.py --run {name}",
        "  chat     python eval/chat.py --endpoint http://127.0.0.1:8000/v1",
        "           in a second terminal, once `serve` says that it is ready",
    ]
    assert list(run.state.stages) == ["model", "data", "train", "test_base", "test_tuned"]
    assert (run.evaluation / "evaluation_report.html").is_file()
    page = (run.path / "summary.html").read_text(encoding="utf-8")
    assert "The training succeeded." in page and "test_tuned" in page
    assert processes_of(tmp_path) == []


def test_a_finished_run_shows_its_screen_again_starts_nothing_and_knows_json(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.main(["--recipe", "mine", *TUNED_ALONE]) == 0
    first = capsys.readouterr().out
    assert "known, exact    2/2" in first
    assert _commands(swift) == ["sft", "deploy"]
    assert pipeline.main(["--resume", "latest"]) == 0
    assert capsys.readouterr().out == first
    assert pipeline.main(["--resume", "latest", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "passed"
    assert document["stages"]["test_tuned"]["facts"]["exact_known"] == "2/2"
    assert _commands(swift) == ["sft", "deploy"]


def test_a_failed_training_is_exit_code_3_and_the_rest_is_done_by_resume(swift: StandIn) -> None:
    swift.set("nan")
    assert pipeline.main(["--recipe", "mine", *TUNED_ALONE]) == 3
    assert _commands(swift) == ["sft"]
    swift.set("good")
    run = _latest()
    for file in run.training.glob("checkpoint-*/trainer_state.json"):
        file.unlink()
    assert pipeline.main(["--resume", "latest"]) == 0
    assert _commands(swift) == ["sft", "sft", "deploy"]


def test_a_stage_that_was_interrupted_is_the_first_to_be_done_again(
    swift: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("palmswift.eval.evaluation.evaluate", interrupted)
        assert pipeline.main(["--recipe", "mine", *TUNED_ALONE]) == 130
    assert _latest().state.stages["test_tuned"].state == "interrupted"
    assert pipeline.main(["--resume", "latest"]) == 0
    assert _commands(swift) == ["sft", "deploy", "deploy"]


def test_a_killed_pipeline_leaves_no_server_and_goes_on_where_it_was(
    tmp_path: Path, swift: StandIn
) -> None:
    swift.set("refusing")
    assert pipeline.main(["--recipe", "mine", *TUNED_ALONE]) == 4
    swift.set("hang")
    script = str(REPOSITORY / "launchers" / "pipeline.py")
    killed = subprocess.Popen(
        [sys.executable, script, "--resume", "latest"], stderr=subprocess.DEVNULL
    )
    _wait_for("the server hangs", swift.is_hanging)
    killed.kill()
    killed.wait()
    _wait_for("everything ends", lambda: not processes_of(tmp_path))
    swift.set("good")
    assert pipeline.main(["--resume", "latest"]) == 0


def _wait_for(what: str, found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_gate_that_fails_is_exit_code_1_and_stands_on_the_screen(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(suite.read_text().replace("reference: ok", "reference: other"))
    assert pipeline.main(["--recipe", "mine", *TUNED_ALONE]) == 1
    shown = capsys.readouterr().out
    assert "gate     FAILED  tuned: exact_match" in shown
    assert "chrF of 100" in shown


def test_requests_without_a_reply_are_exit_code_4_and_are_asked_again_by_resume(
    swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set("refusing")
    assert pipeline.main(["--recipe", "mine"]) == 4
    run = _latest()
    said = capsys.readouterr()
    assert "2 requests have no reply" in said.out
    assert f"pipeline.py --resume {run.path.name}" in said.err
    assert not run.is_done("test_base")
    assert not run.is_done("test_tuned")
    swift.set("good")
    assert pipeline.main(["--resume", "latest"]) == 0
    predictions = (run.evaluation / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 6  # two answers each, two of them asked twice


def test_own_rows_are_tested_on_those_that_were_held_out(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "own.jsonl"
    lines = [json.dumps({"query": f"q{number}", "response": "ok"}) for number in range(20)]
    rows.write_text("\n".join(lines))
    words = ["--data", str(rows), "--set", "data.val_ratio=0.2", *TUNED_ALONE]
    assert pipeline.main(["--recipe", "mine", *words]) == 0
    shown = capsys.readouterr().out
    assert "held_out, exact    4/4" in shown


def test_a_merge_that_the_recipe_asks_for_stands_between_training_and_test(
    swift: StandIn,
) -> None:
    words = ["--set", "export.merge=true", *TUNED_ALONE]
    assert pipeline.main(["--recipe", "mine", *words]) == 0
    assert _commands(swift) == ["sft", "export", "deploy"]


def test_an_export_that_cannot_be_made_is_told_before_the_training(
    tmp_path: Path,
    swift: StandIn,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PALMSWIFT_QUANT_PYTHON", str(tmp_path / "gone" / "python"))
    assert pipeline.main(["--recipe", "mine", "--set", "export.quant=awq"]) == 2
    assert "gone/python could not be started" in capsys.readouterr().err
    assert pipeline.main(["--recipe", "mine", "--set", "export.bits=5"]) == 2
    assert "`bits` is a property of `quant`" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "eval.suite=gone.yaml"], "gone.yaml: no such file"),
        (["--set", "eval.suite=train.jsonl"], "train.jsonl"),
        (["--data", "train.jsonl", "--set", "data.val_ratio=0"], "nothing to test with"),
        (["--data", "train.jsonl", "--set", "task=kto"], "no questions with a right answer"),
        (["--set", "budget.disk_mib=999999999999"], "MiB free"),
        (["--data", "gone.jsonl"], "gone.jsonl: no such file"),
    ],
)
def test_what_cannot_work_is_told_before_there_is_a_run_folder(
    tmp_path: Path,
    swift: StandIn,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    assert pipeline.main(["--recipe", "mine", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert swift.calls == []


def test_a_dry_run_writes_nothing(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.main(["--recipe", "mine", "--dry-run"]) == 0
    assert "swift.py sft" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
