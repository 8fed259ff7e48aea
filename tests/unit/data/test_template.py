from __future__ import annotations

import os
from pathlib import Path

import pytest

from palmswift.data.template import TemplateJudge, TemplateSpec
from palmswift.errors import ChildError

ROW = {
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
}


def judge_with(swift: str, folder: Path) -> TemplateJudge:
    """A judge whose child imports `swift` from a file with the text `swift`."""
    package = folder / "stand_in" / "swift"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(swift)
    spec = TemplateSpec(
        arguments={"model": str(folder)}, env={"PYTHONPATH": str(folder / "stand_in")}
    )
    return TemplateJudge(spec, "sft", over_length="reject", log=folder / "logs" / "data.log")


def test_a_child_that_fails_is_told_by_its_error_and_its_log(tmp_path: Path) -> None:
    judge = judge_with("raise ImportError('no swift here')\n", tmp_path)
    with pytest.raises(ChildError) as caught, judge:
        judge.submit([ROW])
        judge.finish()
    told = str(caught.value)
    log = tmp_path / "logs" / "data.log"
    assert "ImportError: no swift here" in told and str(log) in told
    assert "Traceback" not in told
    assert "Traceback" in log.read_text()


def test_a_child_that_has_failed_is_noticed_while_rows_are_still_read(tmp_path: Path) -> None:
    judge = judge_with("raise ImportError('no swift here')\n", tmp_path)
    with pytest.raises(ChildError, match="no swift here"), judge:
        for _ in range(100_000_000):
            judge.submit([ROW] * 500)


def test_neither_child_nor_files_are_left_when_the_caller_fails(tmp_path: Path) -> None:
    slow = f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, 'pid').write_text"
    slow += "(str(__import__('os').getpid()))\ntime.sleep(600)\n"
    judge = judge_with(slow, tmp_path)
    with pytest.raises(KeyError), judge:
        judge.submit([ROW] * 1000)
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            pass
        raise KeyError
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["data.log"]
