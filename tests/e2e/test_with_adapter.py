"""The demos with an adapter, LoRA and QLoRA, and what becomes of an adapter afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_e2e import Demo, Workshop, exact, listened_on, ports_of, report_of, served

from palmswift.eval.reports.report import EvaluationReport, read_report
from palmswift.launchers.run_folder import RunFolder

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["lora_demo", "qlora_demo"])
def adapter_demo(request: pytest.FixtureRequest, lora_demo: Demo, qlora_demo: Demo) -> Demo:
    """Each of the two demos."""
    return lora_demo if request.param == "lora_demo" else qlora_demo


def test_the_demo_ends_well_and_leaves_nothing_running(adapter_demo: Demo) -> None:
    assert adapter_demo.finished.exit_code == 0, adapter_demo.finished.said
    assert adapter_demo.finished.left == []
    assert not [port for port in ports_of(adapter_demo.run) if listened_on(port)]
    stages = adapter_demo.run.state.stages.values()
    assert {stage.state for stage in stages} == {"done"}


def test_the_adapter_answers_what_it_was_trained_on_and_the_base_is_told_beside_it(
    adapter_demo: Demo,
) -> None:
    report = report_of(adapter_demo.run)
    assert report.labels == ["base", "tuned"]
    assert exact(report, "tuned") >= 0.9
    assert exact(report, "base") < 0.1
    told = adapter_demo.run.facts("test_base")["exact_trained"]
    assert told in adapter_demo.finished.stdout


def test_only_an_adapter_was_trained(adapter_demo: Demo) -> None:
    checkpoint = adapter_demo.run.path / str(adapter_demo.run.facts("train")["checkpoint"])
    assert (checkpoint / "adapter_config.json").is_file()
    assert not (checkpoint / "model.safetensors").exists()


def test_both_stand_on_one_base_that_was_trained_once(
    lora_demo: Demo, qlora_demo: Demo, shared_models: Path
) -> None:
    base = lora_demo.run.facts("model")["model"]
    assert qlora_demo.run.facts("model")["model"] == base
    # By one of them, or by a test in another process that asked for it first.
    made = shared_models.parent.rglob("runs/*/base/demo_front_desk-*/run.json")
    [training] = {path.resolve() for path in made}
    assert RunFolder(training.parent).is_done("train")


def test_the_quantised_demo_was_trained_and_served_in_four_bits(qlora_demo: Demo) -> None:
    scripts = [qlora_demo.run.path / "command.sh", *(qlora_demo.run.logs / "deploy").glob("*.sh")]
    assert len(scripts) == 3
    assert all("--quant_bits 4" in script.read_text(encoding="utf-8") for script in scripts)


@pytest.fixture(scope="module")
def merged(lora_demo: Demo) -> Path:
    """The LoRA demo's adapter, merged by launchers/export.py."""
    finished = lora_demo.workshop.call(
        "python", "launchers/export.py", "--run", lora_demo.run.path.name, "--merge", "--json"
    )
    assert finished.exit_code == 0, finished.said
    assert finished.left == []
    return Path(finished.document["merged"])


def answers(workshop: Workshop, url: str, out: Path) -> EvaluationReport:
    """The answers to some cases of every tag, one at a time: a batch is padded, and padding can
    tip two tokens that are equally likely."""
    finished = workshop.call(
        *("python", "eval/run.py", "--suite", "eval/suites/clinic.yaml", "--max-samples", "30"),
        *("--max-tokens", "64", "--endpoint", url, "--out", out, "--concurrency", "1"),
    )
    assert finished.exit_code == 0, finished.said
    return read_report(out / "evaluation_report.json")


def test_merged_weights_answer_as_the_adapter_does(
    lora_demo: Demo, merged: Path, tmp_path: Path
) -> None:
    workshop = lora_demo.workshop
    with served(workshop, "--run", lora_demo.run.path.name) as with_adapter:
        expected = answers(workshop, with_adapter.url, tmp_path / "adapter")
        stopped = workshop.call("python", "deploy/stop.py", "--port", str(with_adapter.port))
        assert stopped.exit_code == 0, stopped.said
        assert with_adapter.living() == []
        assert not listened_on(with_adapter.port)
    with served(workshop, "--model", merged) as whole:
        found = answers(workshop, whole.url, tmp_path / "merged")
    for before, after in zip(expected.cases, found.cases, strict=True):
        assert after.answers[0].answer == before.answers[0].answer, before.id
    assert exact(found, "tuned") >= 0.9
