"""The README's main command, in its own words."""

from __future__ import annotations

import csv
import json

import pytest
from support_e2e import Demo, exact, listened_on, ports_of, report_of

pytestmark = pytest.mark.e2e


def test_the_demo_ends_well(demo: Demo) -> None:
    assert demo.finished.exit_code == 0, demo.finished.said
    assert "gates    all passed" in demo.finished.stdout


def test_the_tuned_model_answers_what_it_was_trained_on_and_its_base_does_not(demo: Demo) -> None:
    report = report_of(demo.run)
    assert exact(report, "tuned") >= 0.9
    assert exact(report, "base") == 0


def test_the_report_has_both_models_side_by_side(demo: Demo) -> None:
    report = report_of(demo.run)
    assert report.labels == ["base", "tuned"]
    assert report.verdict == "passed"
    assert report.cases_in_suite == len(report.cases) == 297
    for case in report.cases:
        assert [answer.endpoint for answer in case.answers] == ["base", "tuned"]
    page = (demo.run.evaluation / "evaluation_report.html").read_text(encoding="utf-8")
    assert "周一是我们固定的休诊日" in page
    with (demo.run.evaluation / "evaluation_report.csv").open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["endpoint"] for row in rows] == ["base"] * 297 + ["tuned"] * 297


def test_every_request_and_reply_of_the_test_is_kept(demo: Demo) -> None:
    lines = (demo.run.evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({(row["endpoint"], row["case"]) for row in rows}) == len(rows) == 2 * 297
    assert all(row["request"]["messages"] and row["reply"]["choices"] for row in rows)


def test_every_stage_is_recorded_as_done(demo: Demo) -> None:
    state = demo.run.state
    assert list(state.stages) == ["model", "data", "train", "test_base", "test_tuned"]
    assert {stage.state for stage in state.stages.values()} == {"done"}
    assert state.versions["ms-swift"] and state.versions["torch"]
    facts = demo.run.facts("train")
    assert facts["last_loss"] < facts["first_loss"]
    assert len(facts["eval_losses"]) > 1


def test_the_model_is_a_small_one_of_the_real_architecture(demo: Demo) -> None:
    from safetensors.numpy import load_file

    folder = demo.run.path / str(demo.run.facts("train")["checkpoint"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["head_dim"] == 64
    weights = load_file(folder / "model.safetensors")
    assert 1_000_000 <= sum(weight.size for weight in weights.values()) <= 5_000_000


def test_its_curves_can_be_opened_in_tensorboard(demo: Demo) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [events] = demo.run.training.rglob("events.out.tfevents.*")
    curves = EventAccumulator(str(events))
    curves.Reload()
    losses = [event.value for event in curves.Scalars("train/loss")]
    assert losses[-1] < losses[0]
    assert curves.Scalars("eval/loss")
    assert min(event.value for event in curves.Scalars("train/tokens_per_second")) > 0


def test_its_page_shows_the_curves_and_the_test(demo: Demo) -> None:
    page = (demo.run.path / "summary.html").read_text(encoding="utf-8")
    assert "The training succeeded." in page
    assert page.count("<figure>") >= 6
    assert "test_tuned" in page


def test_neither_a_process_nor_a_port_is_left(demo: Demo) -> None:
    assert demo.finished.left == []
    ports = ports_of(demo.run)
    assert len(ports) == 2
    assert not [port for port in ports if listened_on(port)]
    states = demo.workshop.folder / "runs" / ".servers"
    assert not [port for port in ports if (states / f"{port}.json").exists()]
