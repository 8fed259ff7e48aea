"""The demos with an adapter, LoRA and QLoRA, and what becomes of an adapter afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_e2e import Demo, Finished, exact, listened_on, ports_of, report_of

from palmswift.deploy.parity_judge import ParityReport
from palmswift.export.manifest import read_manifest
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
def exports(lora_demo: Demo) -> Finished:
    """The LoRA demo's adapter, merged, and quantised to 4 bits, by launchers/export.py."""
    words = ("--merge", "--quant", "bnb", "--memory-limit", "1GiB", "--json")
    return lora_demo.workshop.call(
        "python", "launchers/export.py", "--run", lora_demo.run.path.name, *words
    )


def test_merged_weights_answer_as_the_adapter_does(exports: Finished) -> None:
    assert exports.exit_code in (0, 1), exports.said  # 1: the quantised one has lost too much
    assert exports.left == []
    assert exports.document["exports"][0]["passed"]
    folder = Path(exports.document["merged"])
    report = ParityReport.model_validate_json((folder / "parity.json").read_bytes())
    assert report.passed
    assert report.divergence is not None
    assert report.divergence < 1e-4
    assert {one.prompt for one in report.prompts} == {"same"}
    assert {one.answer for one in report.prompts} <= {"same", "tie"}


def test_the_merge_has_held_less_than_its_limit(exports: Finished) -> None:
    manifest = read_manifest(Path(exports.document["merged"]))
    assert manifest is not None
    assert manifest.settings["by"] == "palmswift"
    assert manifest.settings["changed"] == 21
    assert 0 < int(str(manifest.settings["peak_mib"])) < 1024


def test_a_quantised_export_tells_what_it_has_cost_and_nothing_else_is_wrong(
    exports: Finished, lora_demo: Demo
) -> None:
    manifest = read_manifest(lora_demo.run.path / "export" / "bnb-int4")
    assert manifest is not None
    assert manifest.found == "bitsandbytes 4 bit"
    assert {check.name: check.passed for check in manifest.checks} == dict.fromkeys(
        ("whole", "finite", "quantised", "size", "template", "stop tokens", "loads"), True
    )
    assert manifest.stop_tokens["<|im_end|>"] == 2
    parity = manifest.parity
    assert parity is not None
    assert parity.divergence is not None
    assert 0 < parity.divergence < 1
    assert parity.same_prompts == parity.prompts
    # The toy has learnt by heart, and rounding to 4 bits may cost it more than is allowed.
    assert set(parity.causes) <= {"quantisation_loss"}
    assert exports.exit_code == (0 if parity.passed else 1)
    assert f"quantisation loss {parity.divergence:.2g} nats a token" in exports.stderr
