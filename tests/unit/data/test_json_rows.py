from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palmswift.data.lines import LONGEST_ROW
from palmswift.data.read import DataFile, open_files
from palmswift.data.row import Rejection, SourceRow


def opened(tmp_path: Path, name: str, text: str | bytes) -> DataFile:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (file,) = open_files([path])
    return file


def outline(file: DataFile) -> list[tuple[int, str]]:
    """Line and reason code of every row, `ok` for one that could be read."""
    return [
        (row.place.line, row.code if isinstance(row, Rejection) else "ok") for row in file.rows()
    ]


def values(file: DataFile) -> list[Any]:
    return [row.value for row in file.rows() if isinstance(row, SourceRow)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"a": 1, }', "broken_json"),
        ("{'a': 1}", "broken_json"),
        ('{"a": "cut of', "broken_json"),
        ('{"a": "raw\x00nul"}', "broken_json"),
        ('{"a": "raw\x00nul and\ttab"}', "broken_json"),
        ('{"a": NaN}', "broken_json"),
        ('{"a": 1e999}', "broken_json"),
        ("garbage", "broken_json"),
        ("# comment", "broken_json"),
        ('{"a": 1} and more', "broken_json"),
        ('{"a": ' + "9" * 5000 + "}", "broken_json"),
        ('{"a":' * 500 + "1" + "}" * 500, "broken_json"),
        ("[" * 100_000, "broken_json"),
        ('{"a":' * 70 + "1" + "}" * 70, "broken_json"),
        ('{"a": 1, "a": 2}', "duplicate_key"),
        ('{"m": [{"role": 1, "role": 2}]}', "duplicate_key"),
        ('{"a": 1, "a" : 2},', "duplicate_key"),
        ("null", "not_an_object"),
        ("7", "not_an_object"),
        ("true", "not_an_object"),
    ],
)
def test_a_broken_line_costs_that_line(tmp_path: Path, line: str, code: str) -> None:
    file = opened(tmp_path, "f.jsonl", f'{{"q": 1}}\n\n{line}\r\n{{"q": 2}}')
    assert outline(file) == [(1, "ok"), (3, code), (4, "ok")]
    broken = list(file.rows())[1]
    assert isinstance(broken, Rejection)
    assert broken.row == line.removesuffix(",")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"a": 1},', [{"a": 1}]),
        ('\ufeff{"a": 1}', [{"a": 1}]),
        ('[{"a": 1},', [{"a": 1}]),
        ('{"a": 1}]', [{"a": 1}]),
        ('{"a": 1}{"a": 2}', [{"a": 1}, {"a": 2}]),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('[{"a": 1}, {"a": 2},', [{"a": 1}, {"a": 2}]),
        ("[\n]", []),
        ('{"a": "one\ntwo", "b": "three\n\nfour"}', [{"a": "one\ntwo", "b": "three\n\nfour"}]),
        ('{"a": "one\ttwo"}', [{"a": "one\ttwo"}]),
        ('{\n  "a": {\n    "b": 1\n  }\n},', [{"a": {"b": 1}}]),
        ('{"a": "\\ud800"}', [{"a": "\ud800"}]),
    ],
)
def test_damage_that_has_one_meaning_is_read(tmp_path: Path, text: str, rows: list[Any]) -> None:
    file = opened(tmp_path, "f.jsonl", f'{{"q": 1}}\n{text}\n{{"q": 2}}\n')
    assert values(file) == [{"q": 1}, *rows, {"q": 2}]
    assert [row.place.number for row in file.rows()] == list(range(1, len(rows) + 3))
    assert outline(file)[-1][0] == text.count("\n") + 3


@pytest.mark.parametrize(
    "row",
    [
        ["你好", "您好", "再见"],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"from": "human", "value": "a"}],
        [{"human": "a", "assistant": "b"}],
        "a text",
    ],
)
def test_a_line_that_is_a_list_of_turns_or_a_text_is_one_row(tmp_path: Path, row: Any) -> None:
    line = json.dumps(row)
    assert values(opened(tmp_path, "one.jsonl", line)) == [row]
    assert values(opened(tmp_path, "two.jsonl", f"{line}\n{line}\n")) == [row, row]


def test_lists_one_a_line_stay_one_row_a_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    file = opened(tmp_path, "f.json", '["a", "b"]\n["c", "d"]\n')
    assert (values(file), outline(file)) == ([["a", "b"], ["c", "d"]], [(1, "ok"), (2, "ok")])


def test_a_line_that_breaks_off_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    text = '{"q": 1}\n{"q": "a\n{"q": 2}\n{"q": "\n   {"q": 3}\nx"}\n{"q":\n'
    assert outline(opened(tmp_path, "f.jsonl", text)) == [
        (1, "ok"),
        (2, "broken_json"),
        (3, "ok"),
        (4, "broken_json"),
        (5, "ok"),
        (6, "broken_json"),
        (7, "broken_json"),
    ]


def test_a_text_that_is_torn_over_many_lines_of_braces_is_given_up(tmp_path: Path) -> None:
    text = '{"q": 1}\n{"q": "a\n' + "}\n" * 3000 + '{"q": 2}\n'
    codes = [code for _, code in outline(opened(tmp_path, "f.jsonl", text))]
    assert codes == ["ok", *["broken_json"] * 3001, "ok"]


def test_the_detail_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    lines = ['{"q": 1}', "{'q': 1}", '// {"q": 1}', '{"q": 1, "q": 2}', '{"q" 1}', '{"q": 1']
    file = opened(tmp_path, "f.jsonl", "\n".join(lines))
    details = [row.detail for row in file.rows() if isinstance(row, Rejection)]
    assert "json.dumps" in details[0]
    assert "comment" in details[1]
    assert "`q` stands twice" in details[2]
    assert "at character 6" in details[3]
    assert "breaks off" in details[4]


def test_the_suffix_may_be_in_capitals_and_lines_may_end_in_crlf(tmp_path: Path) -> None:
    file = opened(tmp_path, "F.JSONL", '{"q": 1}\r\n{"q": 2}\r\n')
    assert (file.format, values(file)) == ("jsonl", [{"q": 1}, {"q": 2}])


def test_a_line_of_a_hundred_megabytes_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    with path.open("w") as stream:
        stream.write('{"q": 1}\n{"q": "')
        for _ in range(100):
            stream.write("x" * (1 << 20))
        stream.write('"}\n{"q": 2}\n')
    (file,) = open_files([path])
    assert outline(file) == [(1, "ok"), (2, "row_too_large"), (3, "ok")]
    large = list(file.rows())[1]
    assert isinstance(large, Rejection)
    assert len(large.row) <= 1000


def test_a_row_of_nearly_the_longest_length_is_read(tmp_path: Path) -> None:
    text = json.dumps({"q": "x" * (LONGEST_ROW - 100)})
    for name, content in (("f.jsonl", f"{text}\n{text}\n"), ("f.json", f"[{text}, {text}]")):
        assert [len(value["q"]) for value in values(opened(tmp_path, name, content))] == [
            LONGEST_ROW - 100
        ] * 2
