from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from support_eval import write_rows

from palmswift.errors import InputError
from palmswift.eval.batch import main, read_inputs
from palmswift.eval.fake_server import FakeServer, Plan
from palmswift.files import read_jsonl


def batch(server: FakeServer, source: Path, out: Path, *words: str) -> int:
    where = ["--endpoint", server.base_url, "--out", str(out), "--attempts", "1"]
    return main(["--input", str(source), *where, *words])


def test_every_input_comes_out_once_in_order_with_its_text(tmp_path: Path) -> None:
    source = tmp_path / "q.txt"
    source.write_text("\ufeff慢\n\n 快 \n慢\n", encoding="utf-8")
    plans: dict[str, Plan | Sequence[Plan]] = {
        "慢": [Plan("<think>\n\n</think>\n\n一", delay=0.1), Plan("一")],
        "快": Plan("二"),
    }
    with FakeServer(plans) as server:
        assert batch(server, source, tmp_path / "a.jsonl", "--system", "客服") == 0
        assert len(server.requests) == 3
    rows = list(read_jsonl(tmp_path / "a.jsonl"))
    assert [(row["id"], row["question"], row["answer"]) for row in rows] == [
        ("1", "慢", "一"),
        ("2", "快", "二"),
        ("3", "慢", "一"),
    ]
    assert rows[0]["messages"][0] == {"role": "system", "content": "客服"}


def test_failed_inputs_stay_in_place_and_are_asked_by_the_same_command(tmp_path: Path) -> None:
    source = tmp_path / "q.txt"
    source.write_text("a\nb\nc\n")
    out = tmp_path / "a.jsonl"
    with FakeServer({"b": Plan(status=400)}) as server:
        assert batch(server, source, out) == 4
    assert [row["error"] is None for row in read_jsonl(out)] == [True, False, True]
    source.write_text("new\na\nb\nc\n")
    with FakeServer() as server:
        assert batch(server, source, out) == 0
        assert sorted(server.questions) == ["b", "new"]
    assert [row["question"] for row in read_jsonl(out)] == ["new", "a", "b", "c"]


def test_a_batch_that_fails_wholly_is_the_endpoints_fault(tmp_path: Path) -> None:
    source = tmp_path / "q.txt"
    source.write_text("a\nb\n")
    with FakeServer(default=Plan(status=400)) as server:
        assert batch(server, source, tmp_path / "a.jsonl") == 3


def test_questions_are_found_in_every_kind_of_file(tmp_path: Path) -> None:
    csv = tmp_path / "q.csv"
    csv.write_bytes("编号,问题\n1,几点开门？\n".encode("gb18030"))
    array = tmp_path / "q.json"
    array.write_text(json.dumps(["几点开门？"], ensure_ascii=False), encoding="utf-8")
    objects = write_rows(tmp_path / "q.jsonl", [{"query": "几点开门？", "response": "八点"}])
    turns = [{"role": "user", "content": "几点开门？"}, {"role": "assistant", "content": "八点"}]
    messages = write_rows(tmp_path / "m.jsonl", [{"id": "x", "messages": turns}])
    for path in (csv, array, objects, messages):
        [item] = read_inputs(path)
        assert item.case.turns[-1].content == "几点开门？"
    assert read_inputs(messages)[0].id == "x"
    assert read_inputs(objects, "response")[0].question == "八点"


def test_rows_without_a_question_are_all_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "q.jsonl", [{"a": 1}, 7, {"question": " "}, {"question": "ok"}])
    with pytest.raises(InputError) as caught:
        read_inputs(path)
    assert [problem.where for problem in caught.value.problems] == [
        f"{path}:{line}" for line in (1, 2, 3)
    ]


def test_an_id_given_twice_and_a_file_that_would_be_overwritten_are_refused(
    tmp_path: Path,
) -> None:
    path = write_rows(tmp_path / "q.jsonl", [{"id": 1, "question": "a"}] * 2)
    with pytest.raises(InputError, match="'1' is given 2 times"):
        read_inputs(path)
    good = write_rows(tmp_path / "g.jsonl", [{"question": "a"}])
    with FakeServer() as server:
        assert batch(server, good, good) == 2
    assert list(read_jsonl(good)) == [{"question": "a"}]
