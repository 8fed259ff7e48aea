from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support_eval import write_rows

from palmswift.errors import InputError
from palmswift.eval.batch import main, read_inputs
from palmswift.eval.fake.server import FakeServer, Plan, Unigram
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


def request_line(name: str, question: str, **changes: Any) -> dict[str, Any]:
    """A line of an OpenAI batch file."""
    body = {"model": "gpt-x", "messages": [{"role": "user", "content": question}], "max_tokens": 4}
    line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return {**line, **changes}


def test_an_openai_batch_file_is_answered_as_one(tmp_path: Path) -> None:
    completion = {
        "url": "/v1/completions",
        "body": {"prompt": "从前", "logprobs": 1, "stream": True},
    }
    lines = [
        request_line("a", "慢"),
        request_line("b", "坏"),
        request_line("c", "", **completion),
        request_line("d", "慢"),
    ]
    source, out = write_rows(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    plans = {"慢": Plan("一", delay=0.05), "坏": Plan(status=422), "从前": Plan("有")}
    with FakeServer(plans, language=Unigram({"有": 0.5})) as server:
        assert batch(server, source, out) == 4
        assert sorted(body["model"] for body in server.requests) == ["fake", *["gpt-x"] * 3]
        assert not any("stream" in body for body in server.requests)
    rows = list(read_jsonl(out))
    assert [row["custom_id"] for row in rows] == ["a", "b", "c", "d"]
    assert len({row["id"] for row in rows}) == 4
    good, bad, bare, _ = rows
    assert good["error"] is None
    assert good["response"]["status_code"] == 200
    assert good["response"]["body"]["choices"][0]["message"]["content"] == "一"
    assert (bad["response"]["status_code"], bad["error"]["code"]) == (422, "status")
    choice = bare["response"]["body"]["choices"][0]
    assert (choice["text"], choice["logprobs"]["tokens"]) == ("有", ["有"])


def test_questions_can_be_written_as_an_openai_batch_output_and_the_other_way(
    tmp_path: Path,
) -> None:
    plain, asked = tmp_path / "q.txt", write_rows(tmp_path / "b.jsonl", [request_line("a", "好")])
    plain.write_text("好\n", encoding="utf-8")
    with FakeServer() as server:
        assert batch(server, plain, tmp_path / "1", "--format", "openai") == 0
        assert batch(server, asked, tmp_path / "2", "--format", "rows", "--model", "mine") == 0
        assert [body["model"] for body in server.requests] == ["fake", "mine"]
    [as_openai], [as_row] = read_jsonl(tmp_path / "1"), read_jsonl(tmp_path / "2")
    assert as_openai["custom_id"] == "1"
    assert as_openai["response"]["body"]["choices"][0]["message"]["content"] == "ok"
    assert (as_row["id"], as_row["answer"]) == ("a", "ok")


def test_what_is_no_request_of_a_batch_file_is_told_by_line(tmp_path: Path) -> None:
    lines = [
        request_line("a", "好"),
        request_line("", "好"),
        request_line("c", "好", url="/v1/embeddings"),
        request_line("d", "好", method="GET"),
        request_line("e", "好", body={"model": "m"}),
        request_line("f", "好", body=[]),
        {"question": "好"},
    ]
    path = write_rows(tmp_path / "b.jsonl", lines)
    with pytest.raises(InputError) as caught:
        read_inputs(path)
    assert [problem.where for problem in caught.value.problems] == [
        f"{path}:{line}" for line in range(2, 8)
    ]
    good = write_rows(tmp_path / "g.jsonl", [request_line("a", "好")])
    with FakeServer() as server:
        assert batch(server, good, tmp_path / "out", "--system", "客服") == 2


def test_a_workbook_and_a_large_file_of_copies_are_answered(tmp_path: Path) -> None:
    import openpyxl

    workbook = openpyxl.Workbook()
    for row in (["编号", "问题"], [1, "几点开门？"], [2, "周末上班吗？"]):
        workbook.active.append(row)
    workbook.save(tmp_path / "q.xlsx")
    copies = tmp_path / "q.txt"
    copies.write_text("好\n" * 300 + "坏\n" * 3, encoding="utf-8")
    with FakeServer() as server:
        assert batch(server, tmp_path / "q.xlsx", tmp_path / "a.jsonl") == 0
        assert server.questions == ["几点开门？", "周末上班吗？"]
        assert batch(server, copies, tmp_path / "b.jsonl") == 0
        assert batch(server, copies, tmp_path / "b.jsonl") == 0
        assert len(server.requests) == 2 + 303
    assert [row["question"] for row in read_jsonl(tmp_path / "b.jsonl")] == ["好"] * 300 + [
        "坏"
    ] * 3


def test_an_empty_file_and_a_model_that_changed_are_told(tmp_path: Path) -> None:
    source, out = tmp_path / "q.txt", tmp_path / "a.jsonl"
    source.write_text("\n \n", encoding="utf-8")
    with FakeServer() as server:
        assert batch(server, source, out) == 2
        source.write_text("好\n", encoding="utf-8")
        assert batch(server, source, out) == 0
        server.weights = "other"
        assert batch(server, source, out) == 0
        assert len(server.requests) == 2
    assert len(list(tmp_path.glob("a.jsonl.journal.until-*"))) == 1


def test_a_tool_call_without_text_is_an_answer(tmp_path: Path) -> None:
    source, out = tmp_path / "q.txt", tmp_path / "a.jsonl"
    source.write_text("天气？\n", encoding="utf-8")
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    reply = {"choices": [{"message": {"content": None, "tool_calls": [call]}}]}
    with FakeServer(default=Plan(body=json.dumps(reply).encode())) as server:
        assert batch(server, source, out) == 0
    [row] = read_jsonl(out)
    assert row["tool_calls"] == [call]
