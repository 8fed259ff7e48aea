from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from palmswift.data.read import DataFile, open_files
from palmswift.data.row import Rejection, SourceRow
from palmswift.errors import InputError


def opened(tmp_path: Path, text: str, name: str = "f.csv") -> DataFile:
    path = tmp_path / name
    path.write_bytes(text.encode())
    (file,) = open_files([path])
    return file


def outline(file: DataFile) -> list[tuple[int, str]]:
    return [
        (row.place.line, row.code if isinstance(row, Rejection) else "ok") for row in file.rows()
    ]


def values(file: DataFile) -> list[Any]:
    return [row.value for row in file.rows() if isinstance(row, SourceRow)]


def test_cells_stay_the_text_that_was_typed(tmp_path: Path) -> None:
    text = 'query,response\r\na,007\r\n"b\r\nc",2024-01-01\r\nd,true\r\ne,"say ""hi"", ok"\r\n'
    file = opened(tmp_path, text)
    assert values(file) == [
        {"query": "a", "response": "007"},
        {"query": "b\r\nc", "response": "2024-01-01"},
        {"query": "d", "response": "true"},
        {"query": "e", "response": 'say "hi", ok'},
    ]
    assert [line for line, _ in outline(file)] == [2, 3, 5, 6]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["f.csv", "f.tsv", "F.CSV"])
def test_the_delimiter_is_sniffed(tmp_path: Path, delimiter: str, name: str) -> None:
    text = f"\ufeffquery{delimiter}response\na{delimiter}b\n"
    assert values(opened(tmp_path, text, name)) == [{"query": "a", "response": "b"}]


def test_the_delimiter_that_the_records_agree_with_is_taken(tmp_path: Path) -> None:
    text = "id, no;query;response\n1;when, where, how?;now\n2;a;b\n"
    assert values(opened(tmp_path, text)) == [
        {"id, no": "1", "query": "when, where, how?", "response": "now"},
        {"id, no": "2", "query": "a", "response": "b"},
    ]


def test_the_line_with_which_excel_names_the_delimiter_is_no_header(tmp_path: Path) -> None:
    assert values(opened(tmp_path, "sep=;\r\nquery;response\r\na,b;c\r\n")) == [
        {"query": "a,b", "response": "c"}
    ]


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("'query','response'\n'a, b','c'\n", {"query": "a, b", "response": "c"}),
        ('query,response\n"a, \\"b\\"","c"\n', {"query": 'a, "b"', "response": "c"}),
        ('query\tresponse\n"好"，他说\t好\n', {"query": '"好"，他说', "response": "好"}),
        ('query\tresponse\n"a\tb"\tc\n', {"query": "a\tb", "response": "c"}),
        ('query,response\n5" disk,"a"\n', {"query": '5" disk', "response": "a"}),
    ],
)
def test_the_quoting_is_sniffed(tmp_path: Path, text: str, row: Any) -> None:
    assert values(opened(tmp_path, text)) == [row]


def test_an_unclosed_quote_costs_its_line_and_a_shifted_record_is_rejected(tmp_path: Path) -> None:
    text = 'query,response\na,b\nc,"d\ne,f\ng,h,extra\ni\nj,k,\n'
    assert outline(opened(tmp_path, text)) == [
        (2, "ok"),
        (3, "broken_csv"),
        (4, "ok"),
        (5, "wrong_column_count"),
        (6, "wrong_column_count"),
        (7, "ok"),
    ]


@pytest.mark.parametrize("later", ['g,"h"', '"g",h', '"g\nx",h', 'g,"h ""i"""', 'g,""'])
def test_an_unclosed_quote_costs_its_line_though_others_are_quoted(
    tmp_path: Path, later: str
) -> None:
    text = f'query,response\na,"b\nc,d\ne,f\n{later}\ni,j\n'
    rows = list(opened(tmp_path, text).rows())
    assert [row.place.line for row in rows][:3] == [2, 3, 4]
    assert isinstance(rows[0], Rejection)
    assert all(isinstance(row, SourceRow) for row in rows[1:])
    assert len(rows) == 5


def test_the_lines_of_a_text_whose_quotes_are_broken_do_not_become_rows(tmp_path: Path) -> None:
    text = 'query,response\na,"he said "hi" and\nleft, quickly\nbye"\nc,d\n'
    assert outline(opened(tmp_path, text)) == [(2, "broken_csv"), (5, "ok")]


def test_a_record_over_lines_with_a_cell_too_many_is_one_rejection(tmp_path: Path) -> None:
    text = 'query,response\na,"b\nplain text\nc",d\ne,f\n'
    assert outline(opened(tmp_path, text)) == [(2, "wrong_column_count"), (5, "ok")]


def test_blank_space_before_the_header_is_the_first_cell_s_own(tmp_path: Path) -> None:
    text = "\n \n\tquery\tresponse\n1\ta\tb\n"
    assert values(opened(tmp_path, text)) == [{"": "1", "query": "a", "response": "b"}]


@pytest.mark.parametrize(
    "header", ["\rquery,response", 'a"b","c', '"query,response', "a\x00b,c\rd"]
)
def test_a_header_that_cannot_be_read_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match="header cannot be read"):
        opened(tmp_path, f"{header}\na,b\n")


def test_blank_lines_and_records_of_empty_cells_are_no_rows(tmp_path: Path) -> None:
    text = "query,response\n\na,b\n,\n\r\n,,,,\nc,d\n"
    assert outline(opened(tmp_path, text)) == [(3, "ok"), (7, "ok")]


@pytest.mark.parametrize("text", ["query,answer,answer\na,b,c\n", "query,answer, answer\na,b,c\n"])
def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="`answer` twice"):
        opened(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "几点开门？,早上八点。\n周一呢？,休诊。\n",
        "你好,您好！有什么可以帮您\n再见,再见\n",
        "When do you open?,We open at eight in the morning.\na,b\n",
        "1,2\n3,4\n",
    ],
)
def test_a_table_without_a_header_is_refused_and_told_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="not a header") as caught:
        opened(tmp_path, text)
    assert "query,response" in str(caught.value)


@pytest.mark.parametrize("header", ["query,response", "No.,问题,答案", "Your question?,id,answer"])
def test_a_header_is_not_taken_for_a_row(tmp_path: Path, header: str) -> None:
    cells = header.count(",")
    assert len(values(opened(tmp_path, f"{header}\na{',b' * cells}\n"))) == 1


def test_a_cell_of_megabytes_is_read_and_one_over_many_lines(tmp_path: Path) -> None:
    row = {"query": "q" * (3 << 20), "response": "line\n" * 1500}
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(row))
    writer.writeheader()
    writer.writerows([row, row])
    assert values(opened(tmp_path, stream.getvalue())) == [row, row]


def test_a_line_that_is_too_large_costs_itself(tmp_path: Path) -> None:
    text = f"query,response\na,b\nc,{'d' * (17 << 20)}\ne,f\n"
    assert outline(opened(tmp_path, text)) == [(2, "ok"), (3, "row_too_large"), (4, "ok")]
