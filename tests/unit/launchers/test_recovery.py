"""A training that ran out of memory, or was cut off for a moment, is brought to its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support_data import CharacterJudge
from support_runs import StandIn, prepare_project, write_project_recipe

from palmswift.errors import ChildError
from palmswift.launchers import recovery
from palmswift.launchers.run_folder import RunFolder, find_run
from palmswift.launchers.train import main

BATCH, STEPS = "per_device_train_batch_size", "gradient_accumulation_steps"
EVALUATED = "per_device_eval_batch_size"
LOGS = Path(__file__).parents[2] / "data" / "training_logs"


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, in a project at `tmp_path`; nothing is waited for."""
    monkeypatch.setattr(recovery, "BACKOFF_SECONDS", (0.0,))
    return prepare_project(tmp_path, monkeypatch)


def _train(folder: Path, *, recovery: dict[str, Any] | None = None, **swift: Any) -> int:
    """Train the project's recipe, with a batch of eight where nothing else is said."""
    file = write_project_recipe(folder, recovery=recovery or {})
    values = {BATCH: 8, STEPS: 1, EVALUATED: 8, **swift}
    file.write_text(
        file.read_text().replace(
            "swift:\n", "swift:\n" + "".join(f"  {name}: {v}\n" for name, v in values.items())
        )
    )
    return main(["--recipe", "mine"])


def _run() -> RunFolder:
    return find_run("latest")


def _attempts(run: RunFolder) -> list[dict[str, Any]]:
    found = run.facts("train").get("attempts", [])
    assert isinstance(found, list)
    return found


def test_memory_that_ran_out_is_answered_by_smaller_batches_of_the_same_effective_size(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set(f"small {BATCH}=2")
    assert _train(tmp_path) == 0
    run = _run()
    assert run.facts("train")["steps"] == 4
    shapes = [(call[BATCH], call[STEPS]) for call in swift.calls]
    assert shapes == [(["8"], ["1"]), (["4"], ["2"]), (["2"], ["4"])]
    said = capsys.readouterr().err
    retries = [line for line in said.splitlines() if line.startswith("retry")]
    assert len(retries) == 2
    assert retries[0].startswith(
        "retry    2 of 4: the GPU's memory ran out in the backward pass: 138.00 MiB more"
    )
    assert retries[0].endswith(
        f"now swift.{BATCH}=4 swift.{STEPS}=2 (the effective batch stays 8), from checkpoint-2"
    )


def test_every_attempt_stands_in_run_json_and_its_recipe_in_the_folder(
    tmp_path: Path, swift: StandIn
) -> None:
    swift.set(f"small {BATCH}=4")
    assert _train(tmp_path) == 0
    run = _run()
    attempts = _attempts(run)
    for attempt in attempts:
        assert attempt.pop("seconds") >= 0
    assert attempts == [
        {
            "number": 1,
            "changes": [],
            "resumed_from": None,
            "steps": 2,
            "outcome": "out_of_memory (backward)",
            "cause": "the GPU's memory ran out in the backward pass: 138.00 MiB more were asked "
            "for, 11.25 MiB of 7.63 GiB were free",
        },
        {
            "number": 2,
            "changes": [f"swift.{BATCH}=4 swift.{STEPS}=2"],
            "resumed_from": "checkpoint-2",
            "steps": 4,
            "outcome": "done",
            "cause": "",
        },
    ]
    assert run.recipe.swift[BATCH] == 8
    assert run.training_recipe.swift[BATCH] == 4
    assert f"--{BATCH} 4" in (run.path / "command.sh").read_text()


def test_an_evaluation_without_memory_changes_the_evaluation_alone(
    tmp_path: Path, swift: StandIn
) -> None:
    swift.set(f"small {EVALUATED}=1")
    assert _train(tmp_path) == 0
    assert [(call[BATCH], call[EVALUATED]) for call in swift.calls] == [
        (["8"], ["8"]),
        (["8"], ["1"]),
    ]
    assert swift.calls[-1]["prediction_loss_only"] == ["true"]


def test_no_more_is_tried_than_the_recipe_allows(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set(f"small {BATCH}=1")
    assert _train(tmp_path, recovery={"attempts": 2}) == 3
    assert len(swift.calls) == 2
    said = capsys.readouterr().err
    assert "the training failed after 2 attempts (out_of_memory)" in said
    run = _run()
    assert run.state.stages["train"].state == "failed"
    assert [attempt["outcome"] for attempt in _attempts(run)] == ["out_of_memory (backward)"] * 2


def test_a_run_that_is_resumed_goes_on_as_it_was_recovered(tmp_path: Path, swift: StandIn) -> None:
    swift.set(f"small {BATCH}=2")
    assert _train(tmp_path, recovery={"attempts": 2}) == 3
    assert main(["--resume", "latest"]) == 0
    assert [call[BATCH] for call in swift.calls] == [["8"], ["4"], ["4"], ["2"]]
    assert [attempt["number"] for attempt in _attempts(_run())] == [1, 2, 3, 4]


def test_attempts_outlive_an_interruption(
    tmp_path: Path, swift: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    swift.set(f"small {BATCH}=2")
    assert _train(tmp_path, recovery={"attempts": 2}) == 3
    monkeypatch.setattr("palmswift.launchers.training.run_attempt", interrupted)
    assert main(["--resume", "latest"]) == 130
    assert [attempt["number"] for attempt in _attempts(_run())] == [1, 2]


@pytest.mark.parametrize("mode", ["killed", "nan", "nothing"])
def test_what_cannot_be_mended_is_not_tried_again(
    tmp_path: Path, swift: StandIn, mode: str
) -> None:
    swift.set(mode)
    assert _train(tmp_path) == 3
    assert len(swift.calls) == 1


def test_a_network_that_fails_for_a_moment_is_waited_for_with_the_same_settings(
    tmp_path: Path, swift: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    swift.set("flaky")
    assert _train(tmp_path) == 0
    first, second = swift.calls
    assert first == second
    assert [attempt["outcome"] for attempt in _attempts(_run())] == ["network", "done"]
    assert "retry    2 of 4 in 0 s: the model hub could not be reached" in capsys.readouterr().err
    assert not _run().recovered_recipe.exists()


def test_ctrl_c_while_it_waits_is_final(
    tmp_path: Path, swift: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recovery, "sleep", interrupted)
    swift.set("flaky")
    assert _train(tmp_path) == 130
    assert len(swift.calls) == 1
    assert _run().state.stages["train"].state == "interrupted"
    assert [attempt["outcome"] for attempt in _attempts(_run())] == ["network"]


class _ByMaxLength(CharacterJudge):
    """Rows may have as many characters as the recipe's max_length."""

    def __init__(self, spec: Any, *args: Any, **options: Any) -> None:
        super().__init__(spec, *args, **options)
        self.most = int(spec.arguments["max_length"])

    def _verdict(self, row: dict[str, Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("support_data.MAX_LENGTH", self.most)
            return super()._verdict(row)


def test_shorter_rows_are_judged_anew_and_those_left_out_are_accounted_for(
    tmp_path: Path,
    swift: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", _ByMaxLength)
    swift.set("small max_length=100")
    write_project_recipe(tmp_path)
    long = [{"query": f"q{number}" + "x" * 110, "response": "ok"} for number in range(2)]
    with (tmp_path / "train.jsonl").open("a") as rows:
        rows.write("".join(json.dumps(row) + "\n" for row in long))
    kept = (tmp_path / "train.jsonl").read_text()
    file = write_project_recipe(tmp_path, recovery={"allow": ["length"]})
    (tmp_path / "train.jsonl").write_text(kept)
    file.write_text(
        file.read_text().replace("swift:\n", f"swift:\n  {BATCH}: 1\n  {EVALUATED}: 1\n")
    )
    assert main(["--recipe", "mine"]) == 0
    run = _run()
    first, second = swift.calls
    assert int(first["max_length"][0]) > 100 >= int(second["max_length"][0])
    assert "resume_from_checkpoint" not in second
    assert run.facts("data")["rejected"] == 2
    assert run.facts("data")["read"] == 10
    reasons = [json.loads(line)["code"] for line in (run.data / "rejected.jsonl").open()]
    assert reasons == ["over_length"] * 2
    assert (run.path / "train-before-1" / "checkpoint-2").is_dir()
    said = capsys.readouterr().err
    assert (
        "from the start, for checkpoint-2 does not fit it any more (kept in train-before-1/)"
        in (said)
    )
    assert list(run.state.stages) == ["model", "data", "train"]


class _CutOff(CharacterJudge):
    """Writes what a real child wrote and fails as often as `logs` has names."""

    logs: ClassVar[list[str]] = []

    def __init__(self, *args: Any, log: Path, **options: Any) -> None:
        super().__init__(*args, log=log, **options)
        if self.logs:
            text = (LOGS / f"{self.logs.pop(0)}.log").read_text(encoding="utf-8")
            log.parent.mkdir(exist_ok=True)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(text)
            raise ChildError("the template could not be asked")


def test_rows_are_judged_again_when_the_hub_could_not_be_reached(
    tmp_path: Path,
    swift: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", _CutOff)
    monkeypatch.setattr(_CutOff, "logs", ["network", "network_modelscope"])
    assert _train(tmp_path) == 0
    assert capsys.readouterr().err.count("the model hub could not be reached") == 2
    assert len(swift.calls) == 1


def test_rows_that_cannot_be_judged_for_a_known_reason_are_told_with_its_remedy(
    tmp_path: Path,
    swift: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("palmswift.data.gate.TemplateJudge", _CutOff)
    monkeypatch.setattr(_CutOff, "logs", ["hub_gated", "hub_gated"])
    assert _train(tmp_path) == 3
    said = capsys.readouterr().err
    assert "(hub_auth)" in said
    assert "export HF_TOKEN" in said
    assert _CutOff.logs == ["hub_gated"]
