from __future__ import annotations

import datetime
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from palmswift.data.excel_cells import shown
from palmswift.data.read import open_files
from palmswift.data.row import Rejection, SourceRow
from palmswift.errors import InputError


def workbook(path: Path, sheets: dict[str, list[list[Any]]], hidden: str = "") -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        sheet.sheet_state = "hidden" if name == hidden else "visible"
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


HEADER = ["query", "response"]


def test_cells_are_the_text_that_the_sheet_shows(tmp_path: Path) -> None:
    path = tmp_path / "f.xlsx"
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["query", "response", "说明"])
    cells: list[tuple[Any, str, str]] = [
        ("007", "General", "007"),
        ("line\nbreak", "General", "line\nbreak"),
        (7, "000", "007"),
        (True, "General", "TRUE"),
        (3, "General", "3"),
        (0.1 + 0.2, "General", "0.3"),
        (1234.5, "#,##0.00", "1,234.50"),
        (0.25, "0%", "25%"),
        (datetime.date(2024, 1, 2), "yyyy-mm-dd", "2024-01-02"),
        (datetime.date(2024, 1, 2), 'yyyy"年"m"月"d"日"', "2024年1月2日"),
        (datetime.date(2024, 1, 2), "mm-dd-yy", "2024-01-02"),
        (datetime.datetime(2024, 1, 2, 13, 4), "yyyy/m/d h:mm", "2024/1/2 13:04"),
        (datetime.datetime(2024, 1, 2, 13, 4), "h:mm AM/PM", "1:04 PM"),
    ]
    for line, (value, form, _) in enumerate(cells, 2):
        sheet.cell(line, 1, "q")
        sheet.cell(line, 2, value).number_format = form
    book.save(path)
    (file,) = open_files([path])
    rows = [row for row in file.rows() if isinstance(row, SourceRow)]
    texts = [row.value["response"] for row in rows if isinstance(row.value, dict)]
    assert texts == [text for _, _, text in cells]
    assert [row.place.line for row in rows] == list(range(2, len(cells) + 2))
    assert (file.format, file.notes, file.position) == ("excel", (), file.size)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-7, "000", "-007"),
        (-1234, "#,##0;(#,##0)", "(1,234)"),
        (5, '"¥"0.00', "¥5.00"),
        (5, "[Red]0.0", "5.0"),
        (12345678901234567890, "General", "12345678901234567890"),
        (1e-7, "General", "1e-07"),
        (5, "# ??/??", "5"),
        (datetime.timedelta(hours=30, minutes=5), "[h]:mm:ss", "30:05:00"),
        (datetime.time(8, 5), "hh:mm", "08:05"),
        (datetime.datetime(2024, 1, 2, 0, 7, 9), "mm:ss", "07:09"),
        (datetime.datetime(2024, 1, 2), "General", "2024-01-02"),
        (None, "General", ""),
    ],
)
def test_numbers_and_dates_are_shown_by_their_format(value: Any, form: str, text: str) -> None:
    assert shown(value, form) == text


def test_each_sheet_is_a_table_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    sheets: dict[str, list[list[Any]]] = {
        "问答": [[], HEADER, ["a", "b"], [], ["c", None]],
        "more": [["q", "r"], ["d", "e"]],
        "lists": [HEADER, ["x", "y"]],
        "empty": [],
        "说明": [["本表由前台填写。"], ["请勿修改。"]],
    }
    first, second = open_files([workbook(tmp_path / "f.xlsx", sheets, hidden="lists")])
    assert (first.source.split("#")[1], second.source.split("#")[1]) == ("问答", "more")
    assert [(row.place.line, row.value) for row in first.rows() if isinstance(row, SourceRow)] == [
        (3, {"query": "a", "response": "b"}),
        (5, {"query": "c", "response": ""}),
    ]
    assert [row.value for row in second.rows() if isinstance(row, SourceRow)] == [
        {"q": "d", "r": "e"}
    ]
    assert ["hidden" in note or "not a header" in note for note in first.notes] == [True, True]


def test_a_cell_beside_the_header_costs_its_row(tmp_path: Path) -> None:
    path = workbook(tmp_path / "f.xlsx", {"s": [HEADER, ["a", "b", "c"], ["d", "e"]]})
    (file,) = open_files([path])
    first, second = file.rows()
    assert isinstance(first, Rejection) and isinstance(second, SourceRow)
    assert (first.code, first.row) == ("wrong_column_count", ["a", "b", "c"])


def test_errors_and_formulas_without_a_result_cost_their_rows(tmp_path: Path) -> None:
    rows = [HEADER, ["a", "=1+1"], ["b", "#N/A"], ["c", "fine"], ["=A3", "d"]]
    (file,) = open_files([workbook(tmp_path / "f.xlsx", {"s": rows})])
    codes = [getattr(row, "code", "ok") for row in file.rows()]
    assert codes == ["broken_cell", "broken_cell", "ok", "broken_cell"]
    first = next(file.rows())
    assert isinstance(first, Rejection)
    assert "=1+1" in first.detail
    assert "save it" in first.detail


def test_a_formula_with_a_result_is_its_result(tmp_path: Path) -> None:
    path = workbook(tmp_path / "f.xlsx", {"s": [HEADER, ["a", "=1+1"]]})
    computed = tmp_path / "computed.xlsx"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(computed, "w") as target:
        for name in source.namelist():
            data = source.read(name).replace(b"<f>1+1</f><v></v>", b"<f>1+1</f><v>2</v>")
            target.writestr(name, data.replace(b"<f>1+1</f><v/>", b"<f>1+1</f><v>2</v>"))
    (file,) = open_files([computed])
    assert [row.value for row in file.rows() if isinstance(row, SourceRow)] == [
        {"query": "a", "response": "2"}
    ]


@pytest.mark.parametrize(
    ("sheets", "said"),
    [
        ({"s": []}, "empty"),
        ({"s": [HEADER]}, "no rows"),
        ({"s": [["几点开门？", "八点。"], ["a", "b"]]}, "not a header"),
        ({"s": [["a", "a"], ["b", "c"]]}, "twice"),
    ],
)
def test_a_workbook_without_a_table_is_refused(
    tmp_path: Path, sheets: dict[str, list[list[Any]]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        open_files([workbook(tmp_path / "f.xlsx", sheets)])


def test_a_zip_that_is_no_workbook_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "f.xlsx", {"s": [HEADER, ["a", "b"]]})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    other = tmp_path / "rows.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("rows.jsonl", '{"q": 1}')
    with pytest.raises(InputError) as caught:
        open_files([path, other])
    assert len(caught.value.problems) == 2
    assert "unpack it" in caught.value.problems[1].remedy
