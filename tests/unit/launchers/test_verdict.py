"""A run is judged by what it left, whatever its exit code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_checkpoints import Numbers, adapter, write_adapter, write_base, write_model

from palmswift.launchers.verdict import Expected, Verdict, judge


def _history(output: Path, *records: dict[str, float]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({**record, "global_step/max_steps": f"{step}/{len(records)}"})
        for step, record in enumerate(records, start=1)
    ]
    (output / "logging.jsonl").write_text("\n".join(lines) + "\n")


def _judge(output: Path, exit_code: int = 0, *, evals: bool = True, best: bool = False) -> Verdict:
    expected = Expected(evaluation=evals, keep_best=best)
    return judge(output, output / "log", exit_code, expected)


GOOD = ({"loss": 2.0}, {"loss": 1.0}, {"eval_loss": 1.5})


def test_finite_losses_an_evaluation_and_a_checkpoint_are_success(tmp_path: Path) -> None:
    _history(tmp_path, *GOOD)
    checkpoint = write_adapter(tmp_path, 2)
    verdict = _judge(tmp_path)
    assert verdict.failure is None
    assert (verdict.steps, verdict.losses, verdict.eval_losses) == (3, [2.0, 1.0], [1.5])
    assert verdict.checkpoint == checkpoint


@pytest.mark.parametrize(
    ("records", "kind"),
    [
        ((), "no_steps"),
        (({"loss": float("nan")},), "loss_not_finite"),
        (({"loss": 1.0}, {"loss": float("inf")}), "loss_not_finite"),
        (({"loss": 0.0}, {"loss": 0.0}, {"eval_loss": 1.0}), "loss_zero"),
        (({"loss": 1.0},), "no_eval"),
        (({"loss": 1.0}, {"eval_loss": float("nan")}), "eval_not_finite"),
    ],
)
def test_a_run_that_learnt_nothing_has_failed_though_its_exit_code_is_0(
    tmp_path: Path, records: tuple[dict[str, float], ...], kind: str
) -> None:
    _history(tmp_path, *records)
    write_adapter(tmp_path, 2)
    failure = _judge(tmp_path).failure
    assert failure is not None
    assert failure.kind == kind


def test_a_run_without_a_checkpoint_has_failed(tmp_path: Path) -> None:
    _history(tmp_path, *GOOD)
    failure = _judge(tmp_path).failure
    assert failure is not None
    assert failure.kind == "no_checkpoint"


def test_an_evaluation_is_asked_for_only_with_validation_rows(tmp_path: Path) -> None:
    _history(tmp_path, {"loss": 1.0})
    write_adapter(tmp_path, 1)
    assert _judge(tmp_path, evals=False).failure is None


def test_the_best_checkpoint_is_taken_when_it_is_wanted_and_there(tmp_path: Path) -> None:
    _history(tmp_path, *GOOD)
    best, last = write_adapter(tmp_path, 10), write_adapter(tmp_path, 20, best=10)
    assert _judge(tmp_path, best=True).checkpoint == best
    assert _judge(tmp_path, best=False).checkpoint == last


@pytest.mark.parametrize(
    ("log", "exit_code", "kind"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", 1, "out_of_memory"),
        ("ValueError: remaining_argv: ['--lora_rnk', '8']", 1, "unknown_argument"),
        ("OSError: [Errno 28] No space left on device", 1, "disk_full"),
        ("ModuleNotFoundError: No module named 'liger_kernel'", 1, "missing_package"),
        ("TypeError: 'NoneType' object is not iterable", 1, "no_rows"),
        ("Train:   3%|", 247, "killed"),
        ("Traceback\nRuntimeError: something new", 1, "unknown"),
    ],
)
def test_a_failed_exit_is_explained_from_the_end_of_the_log(
    tmp_path: Path, log: str, exit_code: int, kind: str
) -> None:
    (tmp_path / "log").write_text("INFO starting\n" * 500 + log)
    failure = _judge(tmp_path, exit_code).failure
    assert failure is not None
    assert failure.kind == kind
    assert failure.cause
    assert failure.remedy


def test_an_unknown_failure_shows_the_last_error_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("Traceback\nRuntimeError: something new\nTrain:  3%\n")
    failure = _judge(tmp_path, 1).failure
    assert failure is not None
    assert failure.cause == "RuntimeError: something new"


def test_the_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("ModuleNotFoundError: No module named 'liger_kernel'\n")
    failure = _judge(tmp_path, 1).failure
    assert failure is not None
    assert "liger_kernel" in failure.cause


def _judge_against(output: Path, base: Path, **expected: object) -> Verdict:
    wanted = {"evaluation": False, "base": base, **expected}
    return judge(output, output / "log", 0, Expected(**wanted))  # type: ignore[arg-type]  # checked by the call


def _kind(verdict: Verdict) -> str:
    return verdict.failure.kind if verdict.failure else ""


def test_weights_that_are_those_of_the_base_fail_a_run(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {"a": Numbers("F32", [1.0, 2.0])})
    _history(tmp_path, {"loss": 2.0}, {"loss": 1.0})
    write_model(tmp_path, 2, {"a": Numbers("BF16", [1.0, 2.0])})
    assert _kind(_judge_against(tmp_path, base)) == "weights_unchanged"
    write_model(tmp_path, 2, {"a": Numbers("BF16", [1.0, 2.5])})
    assert _kind(_judge_against(tmp_path, base)) == ""


def test_the_base_of_a_hub_is_found_where_ms_swift_loaded_it_from(tmp_path: Path) -> None:
    base = write_base(tmp_path / "cache", {"a": Numbers("F32", [1.0, 2.0])})
    _history(tmp_path, {"loss": 2.0}, {"loss": 1.0})
    folder = write_model(tmp_path, 2, {"a": Numbers("F32", [1.0, 2.0])})
    assert _kind(_judge(tmp_path, evals=False)) == ""
    (folder / "args.json").write_text(json.dumps({"model_dir": str(base)}))
    assert _kind(_judge(tmp_path, evals=False)) == "weights_unchanged"


def test_weights_that_are_no_numbers_fail_a_run_whose_losses_are_fine(tmp_path: Path) -> None:
    _history(tmp_path, {"loss": 2.0}, {"loss": 1.0})
    write_adapter(tmp_path, 2, adapter(float("nan")))
    verdict = _judge(tmp_path, evals=False)
    assert _kind(verdict) == "weights_not_finite"
    assert verdict.failure is not None
    assert "1 of 2 tensors of checkpoint-2" in verdict.failure.cause


def test_a_checkpoint_that_could_not_be_loaded_fails_a_run(tmp_path: Path) -> None:
    _history(tmp_path, {"loss": 2.0}, {"loss": 1.0})
    folder = write_adapter(tmp_path, 2)
    (folder / "adapter_config.json").write_text('{"peft_ty')
    assert _kind(_judge(tmp_path, evals=False)) in ("checkpoint_broken", "no_checkpoint")


def test_the_checkpoint_to_use_is_the_best_only_while_it_is_there(tmp_path: Path) -> None:
    _history(tmp_path, *GOOD)
    last = write_adapter(tmp_path, 20, best=10)
    verdict = _judge(tmp_path, best=True)
    assert verdict.checkpoint == last
    assert verdict.remarks == [
        "the best checkpoint, checkpoint-10, is no longer there: the last one is taken"
    ]


@pytest.mark.parametrize("task", ["dpo", "kto", "orpo", "simpo", "pt"])
def test_other_numbers_of_preferences_may_be_nan(tmp_path: Path, task: str) -> None:
    """KTO has no chosen answer in some batches, and logs NaN for them."""
    _history(tmp_path, {"loss": 0.7, "rewards/chosen": float("nan")}, {"loss": 0.6})
    write_adapter(tmp_path, 2)
    expected = Expected(evaluation=False, task=task)
    assert judge(tmp_path, tmp_path / "log", 0, expected).failure is None
