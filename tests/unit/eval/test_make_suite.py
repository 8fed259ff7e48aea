"""Suites made of files: what is asked, what is compared, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_eval import ROOT, write_rows
from support_runs import make_run

from palmswift.eval.make_suite import main
from palmswift.eval.suites.suite import Suite, load_suite


def chat(*turns: str, system: str | None = None, **columns: Any) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=False)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages, **columns}


def made(path: Path, *words: str) -> Suite:
    out = path.with_name("made.yaml")
    assert main([str(path), "--out", str(out), "--force", *words]) == 0
    return load_suite(out)


def test_rows_become_cases_with_tags_references_and_the_shared_system_prompt(
    tmp_path: Path,
) -> None:
    path = write_rows(
        tmp_path / "val.jsonl",
        [
            chat("几点开门？", "八点。", system="客服", category="hours"),
            chat("几点开门？", "早上八点。", system="客服", category="hours"),
            chat("1e5", "100000", system="客服", tags=["sums", "short"]),
            chat("yes", "是: {a} #x", system="客服"),
        ],
    )
    suite = made(path)
    assert [case.tags for case in suite.cases] == [["hours"], ["sums", "short"], ["held_out"]]
    assert suite.cases[0].all_references == ["八点。", "早上八点。"]
    assert [case.turns[-1].content for case in suite.cases] == ["几点开门？", "1e5", "yes"]
    assert {case.turns[0].content for case in suite.cases} == {"客服"}
    text = (tmp_path / "made.yaml").read_text(encoding="utf-8")
    assert text.count("客服") == 1
    assert text.startswith("# yaml-language-server")


def test_longer_conversations_are_kept_as_history_or_asked_turn_by_turn(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "val.jsonl", [chat("一", "1", "二", "2", "三", "3")])
    [case] = made(path).cases
    assert [turn.content for turn in case.turns] == ["一", "1", "二", "2", "三"]
    assert case.reference == "3"
    cases = made(path, "--own-answers", "--demand", "exact").cases
    assert [(c.turns[-1].content, c.reference) for c in cases] == [
        ("一", "1"),
        ("二", "2"),
        ("三", "3"),
    ]
    assert [c.after is None for c in cases] == [True, False, False]
    assert all(c.assertions for c in cases)


def test_rows_that_give_no_case_are_named_and_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "val.jsonl", [chat("只有问题"), chat("问", "答")])
    out = tmp_path / "s.yaml"
    assert main([str(path), "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["cases"], len(document["left_out"])) == (1, 1)
    assert "val.jsonl:1" in document["left_out"][0]
    assert main([str(path), "--out", str(out)]) == 2
    empty = write_rows(tmp_path / "e.jsonl", [chat("只有问题")])
    assert main([str(empty), "--out", str(tmp_path / "x.yaml")]) == 2
    assert main(["no-such-run", "--out", str(tmp_path / "x.yaml")]) == 2


def test_rows_of_question_and_answer_will_do(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "qa.jsonl", [{"question": "几点？", "answer": "八点", "topic": "x"}]
    )
    [case] = made(path).cases
    assert (case.question, case.reference, case.tags) == ("几点？", "八点", ["x"])


def test_the_sample_sets_make_suites_that_load(tmp_path: Path) -> None:
    for name in ("clinic/val.jsonl", "front_desk/train.jsonl"):
        out = tmp_path / "s.yaml"
        words = [str(ROOT / "data/samples" / name), "--out", str(out), "--force"]
        assert main([*words, "--demand", "rouge_l", "--repeats", "2", "--max-cases", "50"]) == 0
        suite = load_suite(out)
        assert len(suite.cases) == 50
        assert all(case.repeats == 2 and case.assertions for case in suite.cases)


def test_a_run_gives_the_rows_that_it_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    out = tmp_path / "s.yaml"
    assert main([str(run.path), "--out", str(out)]) == 2
    assert "no row was held out" in capsys.readouterr().err
    run.data.mkdir(exist_ok=True)
    write_rows(run.data / "val.jsonl", [chat("几点开门？", "八点。")])
    assert main([str(run.path), "--out", str(out)]) == 0
    suite = load_suite(out)
    assert (suite.name, suite.cases[0].reference) == (run.recipe.name, "八点。")
