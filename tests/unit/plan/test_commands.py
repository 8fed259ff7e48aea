from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from palmswift.plan.commands import main
from palmswift.plan.fit import Plan
from palmswift.plan.serving import ServingPlan
from palmswift.recipes.load import load_checked


def test_a_recipe_that_fits_exits_0_and_says_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", "qwen3_8b_4bit"]) == 0
    printed = capsys.readouterr().out
    assert "fits: peak 6782 MiB predicted" in printed
    assert "layer_backward" in printed
    assert "longest row that fits: 2688 tokens" in printed


@pytest.mark.parametrize(
    "words", [["--gpu-mib", "6144"], ["--length", "8192"], ["--set", "swift.lora_rank=128"]]
)
def test_a_recipe_that_does_not_fit_exits_1(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--recipe", "qwen3_8b_4bit", *words]) == 1
    assert "DOES NOT FIT" in capsys.readouterr().out


def test_a_cpu_recipe_says_that_it_needs_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", "demo_cpu"]) == 0
    assert "CPU" in capsys.readouterr().out


def test_json_has_the_plan_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", "qwen3_4b_4bit", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert Plan.model_validate(plan).basis == "predicted"
    assert plan["fits"] is True
    assert set(plan["phases_mib"]) < set(plan["terms_mib"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--recipe", "nothing"],
        ["--recipe", "qwen3_8b_4bit", "--length", "0"],
        ["--recipe", "qwen3_8b_4bit", "--length", "abc"],
        ["--recipe", "qwen3_8b_4bit", "--gpu-mib", "-1"],
        ["--recipe", "qwen3_8b_4bit", "--set", "swift.tuner_type=full"],
        ["--recipe", "qwen3_8b_4bit", "--set", "swift.lora_rank=-1"],
        ["--recipe", "qwen3_8b_4bit", "--set", "swift.optim=lomo"],
        ["--recipe", "qwen3_8b_4bit", "--set", "swift.optim=lomo", "--fit"],
        ["--recipe", "qwen3_8b_4bit", "--card", "GeForce 256"],
        ["--recipe", "qwen3_8b_4bit", "--data-report", "runs/no-such-run"],
        ["--recipe", "qwen3_8b_4bit", "--out", "mine.yaml"],
        ["--recipe", "qwen3_8b_4bit", "--backend", "vllm"],
        ["--recipe", "qwen3_8b_4bit", "--serve", "--backend", "nothing"],
        ["--recipe", "demo_cpu", "--serve"],
        ["--recipe", "demo_cpu", "--fit"],
    ],
)
def test_what_cannot_be_planned_exits_2_without_a_traceback(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_every_phase_has_a_bar_and_the_edge_of_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--recipe", "qwen3_8b_4bit", "--set", "swift.lora_rank=64"])
    lines = capsys.readouterr().out.splitlines()
    bars = [line for line in lines if "#" in line]
    assert len(bars) == 9
    assert all("|" in bar for bar in bars)
    assert sum("|#" in bar for bar in bars) >= 2  # over the edge


def test_what_to_change_is_named_for_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe", "qwen3_8b_4bit", "--set", "swift.lora_rank=64", "--gpu-mib", "8188"]
    main(words)
    said = capsys.readouterr().out
    command = next(line for line in said.splitlines() if line.startswith("what fits: "))
    again = shlex.split(command.partition("plan.py ")[2])
    assert again[:-2] == [*words, "--fit"]
    assert main(again[:-2]) == 0


def test_fit_writes_a_recipe_that_is_checked_and_planned_to_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    words = ["--recipe", "qwen3_8b_4bit", "--set", "swift.lora_rank=64", "--fit", "--json"]
    assert main([*words, "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["before"]["fits"] is False
    assert document["plan"]["fits"] is True
    assert document["changes"][0]["saved_mib"] > 0
    assert out.read_text(encoding="utf-8") == document["recipe"]
    assert load_checked(str(out)).recipe.name == "mine"
    assert main(["--recipe", str(out)]) == 0
    assert main([*words, "--out", str(out)]) == 2  # nothing is overwritten


def test_fit_that_finds_nothing_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", "qwen3_8b_4bit", "--gpu-mib", "1024", "--fit"]) == 1
    assert "nothing that is known makes qwen3_8b_4bit fit 1024 MiB" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["my recipe.yaml", "mine.txt", "..yaml"])
def test_fit_writes_no_file_that_could_not_be_a_recipe(name: str, tmp_path: Path) -> None:
    words = ["--recipe", "qwen3_8b_4bit", "--fit", "--out", str(tmp_path / name)]
    assert main(words) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_card_by_name_gives_memory_and_speed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe", "qwen3_8b_4bit", "--card", "rtx 3060", "--headless", "--json"]
    assert main(words) == 0
    plan = Plan.model_validate_json(capsys.readouterr().out)
    assert (plan.gpu_mib, plan.desktop_mib) == (12288, 0)
    assert plan.speed is not None
    assert plan.speed.card == "RTX 3060"


def test_serve_plans_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe", "qwen3_8b_4bit", "--serve", "--backend", "vllm", "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    plan = ServingPlan.model_validate(document["plan"])
    assert plan.memory_fraction == 0.93
    assert document["settings"] == plan.settings
    assert "--set vllm_max_num_seqs=" in document["commands"][0]
    assert [way["backend"] for way in document["ways"]] == ["transformers", "vllm", "llama.cpp"]
    assert main(["--recipe", "qwen3_8b_4bit", "--serve", "--weights", "bf16"]) == 1
