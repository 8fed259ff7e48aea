"""A run is compared with its trained model before its server is ready, unless that is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_deploy import model_folder, working_in_a_project
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from palmswift.deploy import serve, status
from palmswift.deploy.parity import limits_of
from palmswift.deploy.parity_prompts import prompts_of
from palmswift.deploy.parity_truth import (
    MAX_TOKENS,
    ROWS,
    Answer,
    Expected,
    Truth,
    kept_truth,
    truth_key,
    truth_spec,
)
from palmswift.deploy.ports import free_port
from palmswift.deploy.state import read_states, servers_dir
from palmswift.launchers.run_folder import RunFolder
from palmswift.recipes.recipe import Recipe

STAND_IN_SAYS = "ok"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """A finished run of a whole model in a project of its own; `swift` is the stand-in."""
    with working_in_a_project(tmp_path / "项目 1", monkeypatch) as folder:
        yield finished_run(folder / "runs")


def finished_run(parent: Path, task: str = "sft", **deploy: object) -> RunFolder:
    values = {
        "name": "clinic",
        "summary": "A clinic's answers",
        "task": task,
        "model": {"id": "Qwen/Qwen3-0.6B"},
        "swift": {"template": "qwen3", "enable_thinking": False, "torch_dtype": "bfloat16"},
        "deploy": {"port": free_port(), **deploy},
        "budget": {"gpu_mib": 0},
    }
    run = RunFolder.create(Recipe.model_validate(values), parent=parent)
    checkpoint = model_folder(run.training / "checkpoint-10")
    Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(checkpoint / "tokenizer.json"))
    with run.stage("model") as facts:
        facts["model"] = "Qwen/Qwen3-0.6B"
    with run.stage("train") as facts:
        facts["checkpoint"] = str(checkpoint.relative_to(run.path))
    return run


def keep_truth(run: RunFolder, says: str) -> None:
    """Write down that the trained model answers every prompt with `says`."""
    prompts = prompts_of(run, ROWS)
    answer = Answer(text=says, ids=[5, 2], finished=True, logprobs=[-0.1, -0.1], gaps=[9.0, 9.0])
    truth = Truth(
        key=truth_key(truth_spec(run, prompts, MAX_TOKENS)),
        max_tokens=MAX_TOKENS,
        stop_ids=[2],
        tokenizer=str(run.training / "checkpoint-10"),
        expected=[
            Expected(prompt=prompt, prompt_ids=[1], answer=answer, base=answer, variants={})
            for prompt in prompts
        ],
    )
    (run.path / "deploy").mkdir(exist_ok=True)
    (run.path / "deploy" / "parity-truth.json").write_text(truth.model_dump_json())


def test_a_server_that_answers_as_trained_is_ready_and_its_state_says_so(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_truth(run, STAND_IN_SAYS)
    assert serve.main(["--run", "latest", "--detach", "--json"]) == 0
    assert "the trained model" in json.loads(capsys.readouterr().out)["parity"]
    assert status.main([]) == 0
    assert "the trained model" in capsys.readouterr().out
    assert json.loads((run.path / "deploy" / "parity.json").read_text())["causes"] == {}


def test_a_server_that_answers_otherwise_is_not_left_running_and_exits_with_1(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_truth(run, "something else")
    assert serve.main(["--run", "latest", "--detach"]) == 1
    told = capsys.readouterr().out
    assert "NOT the trained model" in told
    assert "--no-parity" in told
    assert read_states(servers_dir()) == []
    assert json.loads((run.path / "deploy" / "parity.json").read_text())["causes"]


def test_without_parity_it_is_served_all_the_same(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_truth(run, "something else")
    assert serve.main(["--run", "latest", "--detach", "--no-parity", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"] == ""


def test_a_model_that_cannot_be_asked_is_served_and_said_not_to_be_compared(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child finds no torch here, as on a machine where it does not fit into the memory.
    broken = run.path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('CUDA out of memory')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    assert serve.main(["--run", "latest", "--detach", "--json"]) == 0
    assert "not compared: the trained model" in json.loads(capsys.readouterr().out)["parity"]


def test_the_base_and_a_recipe_that_leaves_it_out_are_not_compared(
    run: RunFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    keep_truth(run, "something else")
    base = str(model_folder(tmp_path / "base"))
    with run.stage("model") as facts:
        facts["model"] = base
    assert serve.main(["--run", "latest", "--base", "--detach", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"] == ""
    quiet = finished_run(run.path.parent, parity=False)
    assert serve.main(["--run", str(quiet.path), "--detach", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"] == ""


def test_a_run_of_raw_text_says_why_it_is_not_compared(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = finished_run(run.path.parent, task="pt")
    assert serve.main(["--run", str(texts.path), "--detach", "--json"]) == 0
    assert "not questions" in json.loads(capsys.readouterr().out)["parity"]


def test_a_taken_port_is_told_before_the_trained_model_is_asked(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_truth(run, STAND_IN_SAYS)
    assert serve.main(["--run", "latest", "--detach"]) == 0
    (run.path / "deploy" / "parity-truth.json").unlink()
    capsys.readouterr()
    assert serve.main(["--run", "latest", "--detach"]) == 2
    told = capsys.readouterr().err
    assert "is taken" in told
    assert "asking the trained model" not in told


def test_what_was_said_by_other_weights_is_not_used(run: RunFolder) -> None:
    keep_truth(run, STAND_IN_SAYS)
    assert kept_truth(run, most=ROWS, max_tokens=MAX_TOKENS) is not None
    assert kept_truth(run, most=ROWS, max_tokens=MAX_TOKENS + 1) is None
    weights = run.training / "checkpoint-10" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert kept_truth(run, most=ROWS, max_tokens=MAX_TOKENS) is None


def test_close_calls_are_wider_in_16_bits(run: RunFolder) -> None:
    exact = run.recipe.model_copy(update={"swift": {"torch_dtype": "float32"}})
    assert limits_of(exact).tie < limits_of(run.recipe).tie
