from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palmswift.data.lines import LONGEST_ROW
from palmswift.data.read import DataFile, open_files
from palmswift.data.row import Rejection, SourceRow


def opened(tmp_path: Path, name: str, text: str) -> DataFile:
    path = tmp_path / name
    path.write_text(text)
    (file,) = open_files([path])
    return file


def outline(file: DataFile) -> list[tuple[int, str]]:
    return [
        (row.place.line, row.code if isinstance(row, Rejection) else "ok") for row in file.rows()
    ]


def values(file: DataFile) -> list[Any]:
    return [row.value for row in file.rows() if isinstance(row, SourceRow)]


@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
@pytest.mark.parametrize("name", ["f.json", "f.jsonl", "f.txt"])
def test_an_array_is_read_whatever_the_file_is_called(
    tmp_path: Path, indent: int | str | None, name: str
) -> None:
    rows = [{"q": "几", "deep": [{"role": "a"}, {"role": "b"}]}, {"q": "2"}, None]
    file = opened(tmp_path, name, json.dumps(rows, indent=indent))
    assert file.format == "json"
    assert values(file) == rows[:2]
    assert [code for _, code in outline(file)] == ["ok", "ok", "not_an_object"]
    assert [row.place.number for row in file.rows()] == [1, 2, 3]


@pytest.mark.parametrize("indent", [None, 2])
def test_the_lists_of_an_array_are_dialogues_whole(tmp_path: Path, indent: int | None) -> None:
    rows = [["你 好", "您好"], ["a", "b", "c"], ["d"]]
    file = opened(tmp_path, "lccc.json", json.dumps(rows, indent=indent))
    assert values(file) == rows
    by_line = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]"
    assert values(opened(tmp_path, "by_line.json", by_line)) == rows


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("key", ["role", "from"])
def test_a_file_that_is_one_list_of_turns_is_one_row(
    tmp_path: Path, indent: int | None, key: str
) -> None:
    turns = [{key: "user", "content": "a"}, {key: "assistant", "content": "b"}]
    assert values(opened(tmp_path, "f.json", json.dumps(turns, indent=indent))) == [turns]


def test_an_array_of_strings_holds_texts(tmp_path: Path) -> None:
    assert values(opened(tmp_path, "f.json", '["a", "b"]')) == ["a", "b"]


def test_an_array_with_a_row_a_line_is_read_by_its_lines(tmp_path: Path) -> None:
    text = '[\n{"q": 1},\n{"q": "torn\n{"q": 3}\n]\n'
    assert outline(opened(tmp_path, "f.json", text)) == [
        (2, "ok"),
        (3, "broken_json"),
        (4, "ok"),
    ]


def test_a_broken_element_costs_that_element(tmp_path: Path) -> None:
    text = '[\n {"q": 1},\n {"q": "un"closed", "m": [{"q2": 1}]},\n {"q": 3},\n {"q": 4,}\n]'
    file = opened(tmp_path, "f.json", text)
    assert outline(file) == [(2, "ok"), (3, "broken_json"), (4, "ok"), (5, "broken_json")]
    assert values(file) == [{"q": 1}, {"q": 3}]


def test_a_broken_element_of_a_one_line_array_does_not_tear_its_turns_out(tmp_path: Path) -> None:
    rows = [{"m": [{"role": "u"}, {"role": "a"}]}] * 3
    text = json.dumps(rows).replace('"u"', '"u', 1)
    assert [code for _, code in outline(opened(tmp_path, "f.json", text))] == [
        "broken_json",
        "ok",
        "ok",
    ]


def test_a_broken_list_of_a_one_line_array_costs_that_list(tmp_path: Path) -> None:
    text = '[["a", "b"], ["c", "d"e"], ["f", "g"]]'
    file = opened(tmp_path, "f.json", text)
    assert values(file) == [["a", "b"], ["f", "g"]]
    assert len(list(file.rows())) == 3


DAMAGES = {
    "a quote lost": ('"role": "user"', '"role": "user'),
    "a bracket lost": ("      }", "      "),
    "the row's end lost": ("\n  },", "\n  "),
    "the row's beginning lost": ("\n  {", "\n  "),
    "the array's end in the middle": ("\n  },", "\n  }]"),
    "a key without quotes": ('"role"', "role"),
    "a comma too many": ("      },", "      },,"),
    "single quotes": ('"role"', "'role'"),
    "a comment": ('"role"', '// who\n"role"'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("hurt", range(4))
def test_damage_to_a_line_of_a_printed_array_costs_that_row_alone(
    tmp_path: Path, damage: tuple[str, str], hurt: int
) -> None:
    turns = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    rows = [{"messages": list(turns), "id": number} for number in range(4)]
    whole = json.dumps(rows, indent=2)
    # The end of the last row has no comma, so there is nothing to lose there.
    begin = whole.rindex("\n  {", 0, whole.index(f'"id": {hurt}')) if hurt else 1
    text = whole[:begin] + whole[begin:].replace(*damage, 1)
    file = opened(tmp_path, "f.json", text)
    assert [row for row in rows if row["id"] != hurt] == [
        value for value in values(file) if value.get("id") != hurt
    ]
    assert [row.place.number for row in file.rows()] == list(range(1, len(list(file.rows())) + 1))


def test_line_breaks_and_tabs_in_texts_are_read(tmp_path: Path) -> None:
    text = '[{"q": "one\ntwo\tthree",\n  "a": 1}, {"q": 2,\n "a": 3}]'
    rows = [{"q": "one\ntwo\tthree", "a": 1}, {"q": 2, "a": 3}]
    assert values(opened(tmp_path, "f.json", text)) == rows


def test_a_truncated_array_keeps_what_is_whole(tmp_path: Path) -> None:
    file = opened(tmp_path, "f.json", '[{"q": 1},\n{"q": 2},\n{"q": ')
    assert outline(file) == [(1, "ok"), (2, "ok"), (3, "broken_json")]
    cut = json.dumps([{"q": [1, 2]}, {"q": [3, 4]}, {"q": [5, 6]}], indent=1)[:-10]
    assert values(opened(tmp_path, "g.json", cut)) == [{"q": [1, 2]}, {"q": [3, 4]}]


def test_lines_after_an_array_are_read_too(tmp_path: Path) -> None:
    file = opened(tmp_path, "f.json", '[{"q": 1}]\n{"q": 2}\nend\n')
    assert outline(file) == [(1, "ok"), (2, "ok"), (3, "broken_json")]


@pytest.mark.parametrize("indent", [None, 2])
def test_arrays_that_follow_each_other_are_read(tmp_path: Path, indent: int | None) -> None:
    rows = [{"q": 1, "m": [1]}, {"q": 2, "m": []}]
    text = json.dumps(rows, indent=indent)
    assert values(opened(tmp_path, "f.json", f"{text}\n{text}\n")) == rows * 2


@pytest.mark.parametrize("indent", [None, 1])
def test_the_list_that_an_object_wraps_is_read(tmp_path: Path, indent: int | None) -> None:
    rows = [{"q": 1, "m": [{"a": 1}]}, {"q": 2, "m": []}]
    document = {"version": "1 }", "n": 2, "data": rows, "more": {"a": ["]"]}, "end": 1.5}
    file = opened(tmp_path, "f.json", json.dumps(document, indent=indent))
    assert (values(file), len(list(file.rows())), file.notes) == (rows, 2, ())


def test_a_list_beside_the_rows_is_not_read_and_told_of(tmp_path: Path) -> None:
    document = {"train": [{"q": 1}], "test": [{"q": 2}], "names": ["a"]}
    file = opened(tmp_path, "f.json", json.dumps(document))
    assert values(file) == [{"q": 1}]
    assert len(file.notes) == 1
    assert "`test`" in file.notes[0]


@pytest.mark.parametrize("name", ["f.json", "f.jsonl"])
def test_objects_over_several_lines_that_follow_each_other_are_read(
    tmp_path: Path, name: str
) -> None:
    file = opened(tmp_path, name, '{\n "q": 1\n}\n{\n "q": 2\n}\n')
    assert outline(file) == [(1, "ok"), (4, "ok")]


def test_an_object_alone_is_one_row(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}]}
    for indent in (None, 2):
        assert values(opened(tmp_path, "f.json", json.dumps(row, indent=indent))) == [row]


def test_a_comment_above_an_array_costs_itself(tmp_path: Path) -> None:
    text = "// made by hand\n" + json.dumps([{"q": 1}, {"q": 2}], indent=2)
    file = opened(tmp_path, "f.json", text)
    assert outline(file) == [(1, "broken_json"), (3, "ok"), (6, "ok")]


@pytest.mark.parametrize("broken", ["", "}"])
def test_an_element_that_is_too_large_costs_itself(tmp_path: Path, broken: str) -> None:
    large = {"q": 'a "quoted" \\ {bracket' + "x" * LONGEST_ROW, "m": [{"a": "]"}]}
    text = f'[{{"q": 1}}, {json.dumps(large)}{broken}, {{"q": 2}}]'
    file = opened(tmp_path, "f.json", text)
    codes = [code for _, code in outline(file)]
    assert (codes[:2], codes[-1]) == (["ok", "row_too_large"], "ok")
    assert values(file) == [{"q": 1}, {"q": 2}]


def test_an_array_far_longer_than_a_block_is_read_whole(tmp_path: Path) -> None:
    rows = [{"q": "长" * (number % 3000), "n": number} for number in range(5000)]
    for indent in (None, 1):
        text = json.dumps(rows, indent=indent, ensure_ascii=False)
        file = opened(tmp_path, "f.json", text)
        assert values(file) == rows
        lines = [row.place.line for row in file.rows()]
        assert lines == [2 + 4 * number if indent else 1 for number in range(5000)]
