from __future__ import annotations

import json

import pytest

from palmswift.plan.commands import main


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
    assert plan["basis"] == "predicted"
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
    ],
)
def test_what_cannot_be_planned_exits_2_without_a_traceback(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")
