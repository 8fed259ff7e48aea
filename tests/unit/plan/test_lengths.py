from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from palmswift.data.lengths import spread
from palmswift.errors import InputError
from palmswift.plan.fit import Conditions, plan_under
from palmswift.plan.lengths import read_lengths
from palmswift.recipes.load import load_checked


def _write(folder: Path, tokens: list[int], supervised: list[int]) -> Path:
    report: dict[str, Any] = {
        "kept": len(tokens),
        "tokens": {
            "tokens": spread(Counter(tokens)).model_dump(),
            "supervised": spread(Counter(supervised)).model_dump(),
        },
    }
    path = folder / "data" / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


def test_a_run_its_data_folder_and_the_report_itself_are_read_alike(tmp_path: Path) -> None:
    path = _write(tmp_path, [*range(1, 200), 4000], [30] * 200)
    for name in (tmp_path, path.parent, path):
        lengths = read_lengths(str(name))
        assert (lengths.longest, lengths.most_supervised) == (4000, 30)
        assert 198 <= lengths.p99 < 4000


def test_rows_shorter_than_allowed_make_a_smaller_peak(tmp_path: Path) -> None:
    recipe = load_checked("qwen3_8b_4bit", ["swift.use_liger_kernel=false"]).recipe
    lengths = read_lengths(str(_write(tmp_path, [100, 640], [20, 300])))
    worst, real = plan_under(recipe, Conditions()), plan_under(recipe, Conditions(lengths=lengths))
    assert (real.length, real.supervised, real.from_data) == (640, 300, True)
    assert real.peak_mib < worst.peak_mib
    assert (worst.fits, real.fits) == (False, True)


def test_rows_longer_than_allowed_are_not_trained_on(tmp_path: Path) -> None:
    recipe = load_checked("qwen3_8b_4bit").recipe
    lengths = read_lengths(str(_write(tmp_path, [9000], [8000])))
    plan = plan_under(recipe, Conditions(lengths=lengths))
    assert (plan.length, plan.supervised) == (1024, 1024)


@pytest.mark.parametrize("text", ["", "[]", '{"tokens": 3}', '{"tokens": null}'])
def test_what_is_no_report_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"report\.json"):
        read_lengths(str(path))


def test_a_folder_without_a_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data report"):
        read_lengths(str(tmp_path))
