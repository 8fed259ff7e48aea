from __future__ import annotations

import json
from pathlib import Path

import pytest

from palmswift.data.read import DataFile, read_file, read_files
from palmswift.data.row import Rejection, SourceRow
from palmswift.errors import InputError


def read(tmp_path: Path, name: str, text: str | bytes) -> DataFile:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_file(path)


def outline(file: DataFile) -> list[tuple[int, str]]:
    """Line and reason code of every row, `ok` for one that could be read."""
    return [(row.place.line, row.code if isinstance(row, Rejection) else "ok") for row in file.rows]


def fields(file: DataFile) -> list[object]:
    return [row.fields for row in file.rows if isinstance(row, SourceRow)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"a": 1, }', "broken_json"),
        ("{'a': 1}", "broken_json"),
        ('{"a": "cut of', "broken_json"),
        ('{"a": "raw\x00nul"}', "broken_json"),
        ('{"a": NaN}', "broken_json"),
        ("garbage", "broken_json"),
        ("# comment", "broken_json"),
        ('{"a": 1},', "broken_json"),
        ('{"a": 1} {"a": 2}', "broken_json"),
        ('{"a": ' + "9" * 5000 + "}", "broken_json"),
        ('{"a":' * 500 + "1" + "}" * 500, "broken_json"),
        ("[" * 100_000, "broken_json"),
        ('{"a": 1, "a": 2}', "duplicate_key"),
        ('{"m": [{"role": 1, "role": 2}]}', "duplicate_key"),
        ("null", "not_an_object"),
        ("7", "not_an_object"),
        ('["a", "b"]', "not_an_object"),
    ],
)
def test_a_broken_line_costs_that_line(tmp_path: Path, line: str, code: str) -> None:
    file = read(tmp_path, "f.jsonl", f'{{"q": 1}}\n\n{line}\r\n{{"q": 2}}')
    assert outline(file) == [(1, "ok"), (3, code), (4, "ok")]
    broken = file.rows[1]
    assert isinstance(broken, Rejection)
    assert broken.row == line


def test_the_suffix_may_be_in_capitals_and_lines_may_end_in_crlf(tmp_path: Path) -> None:
    file = read(tmp_path, "F.JSONL", '{"q": 1}\r\n{"q": 2}\r\n')
    assert (file.format, fields(file)) == ("jsonl", [{"q": 1}, {"q": 2}])


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["f.json", "f.jsonl"])
def test_an_array_is_read_whatever_the_file_is_called(
    tmp_path: Path, indent: int | None, name: str
) -> None:
    rows = [{"q": "几", "deep": [{"role": "a"}, {"role": "b"}]}, {"q": "2"}, None]
    file = read(tmp_path, name, json.dumps(rows, indent=indent))
    assert file.format == "json"
    assert fields(file) == rows[:2]
    assert [code for _, code in outline(file)] == ["ok", "ok", "not_an_object"]
    assert [row.place.number for row in file.rows] == [1, 2, 3]


def test_a_broken_element_costs_that_element(tmp_path: Path) -> None:
    text = '[\n {"q": 1},\n {"q": "un"closed", "m": [{"q2": 1}]},\n {"q": 3},\n {"q": 4,}\n]'
    file = read(tmp_path, "f.json", text)
    assert outline(file) == [(2, "ok"), (3, "broken_json"), (4, "ok"), (5, "broken_json")]
    assert fields(file) == [{"q": 1}, {"q": 3}]


def test_a_broken_element_of_a_one_line_array_does_not_tear_its_turns_out(tmp_path: Path) -> None:
    rows = [{"m": [{"role": "u"}, {"role": "a"}]}] * 3
    text = json.dumps(rows).replace('"u"', '"u', 1)
    assert [code for _, code in outline(read(tmp_path, "f.json", text))] == [
        "broken_json",
        "ok",
        "ok",
    ]


def test_a_truncated_array_keeps_what_is_whole(tmp_path: Path) -> None:
    file = read(tmp_path, "f.json", '[{"q": 1},\n{"q": 2},\n{"q": ')
    assert outline(file) == [(1, "ok"), (2, "ok"), (3, "broken_json")]


def test_lines_after_an_array_are_read_too(tmp_path: Path) -> None:
    file = read(tmp_path, "f.json", '[{"q": 1}]\n{"q": 2}\nend\n')
    assert outline(file) == [(1, "ok"), (2, "ok"), (3, "broken_json")]


def test_a_wrapped_array_and_objects_over_several_lines_are_read(tmp_path: Path) -> None:
    wrapped = read(tmp_path, "a.json", '{"data": [{"q": 1}, {"q": 2}], "version": "1"}')
    assert fields(wrapped) == [{"q": 1}, {"q": 2}]
    assert len(wrapped.rows) == 2
    spread = read(tmp_path, "b.json", '{\n "q": 1\n}\n{\n "q": 2\n}\n')
    assert outline(spread) == [(1, "ok"), (4, "ok")]


def test_lists_one_a_line_stay_one_row_a_line(tmp_path: Path) -> None:
    file = read(tmp_path, "f.jsonl", '["a", "b"]\n["c", "d"]\n')
    assert outline(file) == [(1, "not_an_object"), (2, "not_an_object")]


def test_csv_cells_stay_the_text_that_was_typed(tmp_path: Path) -> None:
    text = 'query,response\r\na,007\r\n"b\r\nc",2024-01-01\r\nd,true\r\ne,"say ""hi"", ok"\r\n'
    file = read(tmp_path, "f.csv", text)
    assert fields(file) == [
        {"query": "a", "response": "007"},
        {"query": "b\r\nc", "response": "2024-01-01"},
        {"query": "d", "response": "true"},
        {"query": "e", "response": 'say "hi", ok'},
    ]
    assert [line for line, _ in outline(file)] == [2, 3, 5, 6]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_taken_from_the_header(tmp_path: Path, delimiter: str) -> None:
    text = f"\ufeffquery{delimiter}response\na{delimiter}b\n"
    assert fields(read(tmp_path, "f.csv", text)) == [{"query": "a", "response": "b"}]


def test_an_unclosed_quote_costs_its_line_and_a_shifted_record_is_rejected(tmp_path: Path) -> None:
    text = 'query,response\na,b\nc,"d\ne,f\ng,h,extra\ni\nj,k,\n'
    file = read(tmp_path, "f.csv", text)
    assert outline(file) == [
        (2, "ok"),
        (3, "broken_csv"),
        (4, "ok"),
        (5, "wrong_column_count"),
        (6, "wrong_column_count"),
        (7, "ok"),
    ]


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`answer` twice"):
        read(tmp_path, "f.csv", "query,answer,answer\na,b,c\n")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("f.jsonl", "\n \n", "empty"),
        ("f.json", "[]", "no rows"),
        ("f.csv", "query,response\n", "no rows"),
        ("f.txt", "hello\n", "no known kind"),
        ("f", "hello\n", "no known kind"),
    ],
)
def test_a_file_without_rows_or_of_no_known_kind_is_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path, name, text)


def test_all_unusable_files_are_named_at_once(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text('{"q": 1}\n')
    with pytest.raises(InputError) as caught:
        read_files([tmp_path / "a.csv", good, tmp_path / "b.csv"])
    assert [Path(problem.where).name for problem in caught.value.problems] == ["a.csv", "b.csv"]
