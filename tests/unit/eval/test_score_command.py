from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_eval import write_rows

from palmswift.eval.score_command import main

ANSWERS = [{"id": "1", "answer": "周一休诊。"}, {"id": "2", "answer": "<think>想</think>八点。"}]
REFERENCES = [{"id": "2", "reference": "八点。"}, {"id": "1", "reference": "周二休诊。"}]


def scored(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, dict[str, float]]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    document: dict[str, dict[str, dict[str, float]]] = json.loads(capsys.readouterr().out)
    return document["metrics"]


def test_rows_are_joined_by_id_and_thinking_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_rows(tmp_path / "a.jsonl", ANSWERS)
    references = write_rows(tmp_path / "r.jsonl", REFERENCES)
    metrics = scored(capsys, "--predictions", answers, "--references", references)
    assert set(metrics) == {"exact_match", "chrf", "bleu"}
    assert (metrics["exact_match"]["count"], metrics["exact_match"]["n"]) == (1, 2)
    assert 0 < metrics["bleu"]["value"] < 100


def test_without_ids_rows_are_joined_by_order_and_messages_are_references(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_rows(tmp_path / "a.jsonl", [{"answer": "一"}, {"answer": None}])
    turns = [
        [{"role": "user", "content": "?"}, {"role": "assistant", "content": a}] for a in "一二"
    ]
    references = write_rows(tmp_path / "r.jsonl", [{"messages": turn} for turn in turns])
    words = ("--predictions", answers, "--references", references, "--metrics", "exact_match")
    assert scored(capsys, *words) == {"exact_match": {"value": 0.5, "n": 2, "count": 1}}


def test_files_that_do_not_fit_together_are_refused_with_every_partnerless_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_rows(tmp_path / "a.jsonl", ANSWERS)
    other = write_rows(
        tmp_path / "r.jsonl", [{"id": "2", "reference": "x"}, {"id": "3", "output": "y"}]
    )
    assert main(["--predictions", str(answers), "--references", str(other)]) == 2
    told = capsys.readouterr().err
    assert "'1' has no partner" in told
    assert "'3' has no partner" in told
    longer = write_rows(tmp_path / "l.jsonl", [{"reference": "x"}] * 3)
    assert main(["--predictions", str(answers), "--references", str(longer)]) == 2
    assert "2 rows" in capsys.readouterr().err
    assert main(["--predictions", str(answers), "--references", str(tmp_path / "gone")]) == 2
