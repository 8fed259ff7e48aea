from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palmswift.data.read import DataFile, open_files, read_rows
from palmswift.data.row import Rejection, SourceRow
from palmswift.errors import InputError

ROW = '{"q": 1}\n'


def write(path: Path, text: str | bytes = ROW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def values(file: DataFile) -> list[Any]:
    return [row.value for row in file.rows() if isinstance(row, SourceRow)]


def names(files: list[DataFile], folder: Path) -> list[str]:
    return [str(Path(file.source).relative_to(folder)) for file in files]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("f.jsonl", "", "empty"),
        ("f.jsonl", "\n \n", "empty"),
        ("f.json", "[]", "no rows"),
        ("f.json", '{"data": []}', "no rows"),
        ("f.csv", "query,response\n", "no rows"),
        ("f", "hello\n", "no known kind"),
        ("f.foo", "hello\n", r"\.jsonl"),
        ("f.yaml", "hello\n", "save the rows as JSONL"),
        ("f.xls", "hello\n", r"save it as \.xlsx"),
        ("f.pdf", "%PDF-1.4", "save its text"),
        ("f.zip", "PK\x03\x04", "unpack it"),
        ("f.parquet", "hello\n", "is none"),
        ("f.jsonl.gz", "", "empty"),
    ],
)
def test_a_file_without_rows_or_of_no_known_kind_is_refused_with_what_to_do(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        open_files([write(tmp_path / name, text)])
    assert name in str(caught.value)


def test_all_unusable_files_are_named_at_once(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl")
    empty = write(tmp_path / "empty.jsonl", "")
    folder = write(tmp_path / "papers" / "x.doc").parent
    given = [tmp_path / "a.csv", good, empty, folder, tmp_path / "*.tsv"]
    with pytest.raises(InputError, match="4 data files cannot be used") as caught:
        open_files(given)
    assert {Path(problem.where).name for problem in caught.value.problems} == {
        "a.csv",
        "empty.jsonl",
        "papers",
        "*.tsv",
    }


def test_a_folder_gives_its_data_files_sorted_each_once(tmp_path: Path) -> None:
    for name in ("b/2.JSONL.gz", "b/10.json", "a.csv", "README.md", "notes.docx", ".hidden.jsonl"):
        text = "query,response\na,b\n" if name == "a.csv" else ROW
        data = gzip.compress(text.encode()) if name.endswith(".gz") else text
        write(tmp_path / name, data)
    write(tmp_path / "dataset_info.json", "{}")
    files = open_files([tmp_path / "b" / "10.json", tmp_path])
    assert names(files, tmp_path) == ["b/10.json", "a.csv", "b/2.JSONL.gz"]
    assert files[1].notes == (f"{tmp_path}: files of other kinds were not read (.docx)",)


@pytest.mark.parametrize(
    ("others", "read"),
    [
        (["train.jsonl", "val.jsonl", "rejected.jsonl"], ["train.jsonl"]),
        (["data/train-0.jsonl", "data/train-1.jsonl", "data/test-0.jsonl"], None),
        (["train/a.jsonl", "test/a.jsonl"], ["train/a.jsonl"]),
        (["clinic.jsonl", "clinic_test.jsonl"], ["clinic.jsonl"]),
        (["validation.jsonl"], ["validation.jsonl"]),
        (["latest.jsonl", "trained.jsonl"], ["latest.jsonl", "trained.jsonl"]),
    ],
)
def test_what_a_folder_holds_back_from_training_is_left_out_and_told(
    tmp_path: Path, others: list[str], read: list[str] | None
) -> None:
    for name in others:
        write(tmp_path / name)
    files = open_files([tmp_path])
    expected = read or [name for name in others if "train" in name]
    assert names(files, tmp_path) == expected
    for name in set(others) - set(expected):
        assert any(name in note for note in files[0].notes)


def test_a_folder_of_held_out_rows_alone_is_asked_about(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl")
    write(tmp_path / "val.jsonl")
    with pytest.raises(InputError, match="test, val but nothing to train on"):
        open_files([tmp_path])


def test_patterns_are_followed_and_a_name_that_looks_like_one_is_a_name(tmp_path: Path) -> None:
    for name in ("x/a1.jsonl", "x/a2.jsonl", "x/y/a3.jsonl", "rows[1].jsonl"):
        write(tmp_path / name)
    assert names(open_files([str(tmp_path / "x" / "a?.jsonl")]), tmp_path) == [
        "x/a1.jsonl",
        "x/a2.jsonl",
    ]
    assert len(open_files([tmp_path / "x" / "**" / "*.jsonl"])) == 3
    assert names(open_files([tmp_path / "rows[1].jsonl"]), tmp_path) == ["rows[1].jsonl"]


def test_a_relative_pattern_is_followed_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x" / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert [file.source for file in open_files(["x/*.jsonl"])] == ["x/a.jsonl"]


def test_rows_can_be_read_again_and_progress_starts_anew(tmp_path: Path) -> None:
    text = "".join(f'{{"q": {number}, "text": "{"x" * 100}"}}\n' for number in range(20_000))
    (file,) = open_files([write(tmp_path / "f.jsonl", text)])
    first = iter(file.rows())
    next(first)
    assert 0 < file.position < file.size
    assert len(list(file.rows())) == 20_000
    assert file.position == file.size == len(text)
    assert len(list(first)) == 19_999


@pytest.mark.parametrize("cut", [10, 200_000])
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_an_archive_that_breaks_off_is_an_error_and_no_end(
    tmp_path: Path, pack: Callable[[bytes], bytes], cut: int
) -> None:
    text = "".join(f'{{"q": {number**9}}}\n' for number in range(30_000))
    path = write(tmp_path / "f.jsonl.gz", pack(text.encode())[:-cut])
    with pytest.raises(InputError, match="breaks off"):
        list(read_rows(path))


def test_archives_of_several_parts_are_read_whole(tmp_path: Path) -> None:
    for pack in (gzip.compress, zstandard.compress):
        path = write(tmp_path / "f.jsonl.gz", pack(ROW.encode() * 3) + pack(ROW.encode() * 2))
        assert len(list(read_rows(path))) == 5


# Any rows, in any format, encoding and packing.

TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=40
)
CELL = st.one_of(TEXT, st.sampled_from(["007", "2024-01-01", "true", 'say "hi", ok', "a\nb", "=1"]))
RECORDS = st.lists(
    st.fixed_dictionaries({"query": CELL.filter(bool), "response": CELL}), min_size=1, max_size=8
)
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), CELL),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(CELL, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(TEXT, VALUE, min_size=1, max_size=4), min_size=1, max_size=6)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le+mark", "utf-32", "gb18030"])
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def encoded(text: str, encoding: str) -> bytes:
    if encoding == "utf-16-le+mark":
        return codecs.BOM_UTF16_LE + text.encode("utf-16-le")
    return text.encode(encoding)


def jsonl(rows: list[Any], ascii_only: bool = False) -> str:
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)


def table(rows: list[dict[str, str]], delimiter: str) -> str:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def assert_read_back(name: str, data: bytes, rows: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (file,) = open_files([write(Path(folder) / name, data)])
        read = list(file.rows())
    assert [row.value if isinstance(row, SourceRow) else row for row in read] == rows
    assert [row.place.number for row in read] == list(range(1, len(rows) + 1))


@FEW
@given(OBJECTS, ENCODINGS, st.sampled_from(sorted(PACKERS)), st.data())
def test_any_objects_come_back_from_json(
    rows: list[Any], encoding: str, packing: str, data: st.DataObject
) -> None:
    form = data.draw(st.sampled_from(["jsonl", "array", "printed", "by line"]))
    ascii_only = data.draw(st.booleans())
    if form == "jsonl":
        text = jsonl(rows, ascii_only)
    elif form == "by line":
        text = "[\n" + ",\n".join(jsonl([row]).strip() for row in rows) + "\n]\n"
    else:
        spaces = data.draw(st.integers(0, 3))
        text = json.dumps(
            rows, ensure_ascii=ascii_only, indent=spaces if form == "printed" else None
        )
    if encoding == "gb18030" and text.isascii():
        encoding = "utf-8"
    # A few characters of Chinese in GB18030 can by chance be good UTF-8: files have more.
    text = (
        text.replace("{", '{"说明": "诊所的客服问答，按行排列。", ', 1)
        if encoding == "gb18030"
        else text
    )
    expected = json.loads(text) if form != "jsonl" else [json.loads(x) for x in text.splitlines()]
    name = "f.jsonl" if form == "jsonl" else "f.json"
    assert_read_back(name + packing, PACKERS[packing](encoded(text, encoding)), expected)


@FEW
@given(RECORDS, ENCODINGS, st.sampled_from(sorted(PACKERS)), st.sampled_from(",;\t"))
def test_any_cells_come_back_from_csv(
    rows: list[dict[str, str]], encoding: str, packing: str, delimiter: str
) -> None:
    rows = [{"说明": "诊所的客服问答，按行排列", **row} for row in rows]
    data = PACKERS[packing](encoded(table(rows, delimiter), encoding))
    assert_read_back(f"f.csv{packing}", data, rows)


@settings(FEW, max_examples=12)
@given(RECORDS)
def test_any_cells_come_back_from_parquet_and_from_workbooks(rows: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        assert_read_back("f.parquet", path.read_bytes(), rows)
        book = openpyxl.Workbook()
        for cells in (["query", "response"], *([row["query"], row["response"]] for row in rows)):
            book.active.append(cells)
            for cell in book.active[book.active.max_row]:
                cell.data_type = "s"
        book.save(Path(folder) / "f.xlsx")
        assert_read_back("f.xlsx", (Path(folder) / "f.xlsx").read_bytes(), rows)


# A file of three bytes, one of them NUL, is rightly called binary: these are a file around a line.
GOOD = [{"query": f"第 {number} 个问题，一样长", "response": "a"} for number in range(5)]

DAMAGE = st.one_of(
    # The first bytes of a file may also say that it is an archive, an image, UTF-16 or the like.
    st.binary(min_size=1, max_size=20).map(lambda data: b"x" + data.replace(b"\n", b"")),
    st.sampled_from(["null", "{'q': 1}", '{"q": "a', '{"q": 1,, }', "# no", "}", "]]", '"', "﻿"]),
)


@FEW
@given(OBJECTS, st.integers(0, 100), DAMAGE, st.data())
def test_whatever_stands_in_one_line_of_jsonl_the_other_rows_are_read(
    rows: list[Any], place: int, damage: str | bytes, data: st.DataObject
) -> None:
    rows = [*rows, *GOOD]
    lines = [line.encode() for line in jsonl(rows).split("\n")[:-1]]
    hurt = place % (len(lines) + 1)
    broken = damage if isinstance(damage, bytes) else damage.encode()
    if data.draw(st.booleans()) and hurt < len(lines):
        cut = data.draw(st.integers(0, len(lines[hurt])))
        broken = lines[hurt][:cut] + broken + lines[hurt][cut + data.draw(st.integers(0, 3)) :]
    others = [*rows[:hurt], *rows[hurt + (1 if hurt < len(lines) else 0) :]]
    lines[hurt : hurt + 1] = [broken]
    assert_others_survive("f.jsonl", b"\n".join(lines) + b"\n", others)


@FEW
@given(OBJECTS, st.integers(0, 1000), DAMAGE, st.data())
def test_whatever_stands_in_one_line_of_a_printed_array_the_other_rows_are_read(
    rows: list[Any], place: int, damage: str | bytes, data: st.DataObject
) -> None:
    rows = [*rows, *GOOD]
    printed = [json.dumps(row, indent=2, ensure_ascii=False).encode() for row in rows]
    parts = [part.replace(b"\n", b"\n  ").split(b"\n") for part in printed]
    hurt = place % len(parts)
    line = data.draw(st.integers(0, len(parts[hurt]) - 1))
    broken = damage if isinstance(damage, bytes) else damage.encode()
    parts[hurt][line] = b"  " + broken
    content = b"[\n  " + b",\n  ".join(b"\n".join(part) for part in parts) + b"\n]\n"
    assert_others_survive("f.json", content, [*rows[:hurt], *rows[hurt + 1 :]])


@FEW
@given(RECORDS, st.integers(0, 100), st.data())
def test_whatever_stands_in_one_line_of_csv_the_other_rows_are_read(
    rows: list[dict[str, str]], place: int, data: st.DataObject
) -> None:
    rows = [{name: cell.replace("\n", " ") for name, cell in row.items()} for row in rows]
    header, *lines = table(rows, ",").split("\r\n")[:-1]
    hurt = place % len(lines)
    line = lines[hurt]
    cut = data.draw(st.integers(0, len(line)))
    inserted = data.draw(st.sampled_from(['"', ",", '""', 'x"y', '","', "\x00", "a,b,c,d", ""]))
    lines[hurt] = line[:cut] + inserted + line[cut + data.draw(st.integers(0, 3)) :]
    others = [*rows[:hurt], *rows[hurt + 1 :]]
    assert_others_survive("f.csv", "\r\n".join([header, *lines, ""]).encode(), others)


def assert_others_survive(name: str, content: bytes, others: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            (file,) = open_files([write(Path(folder) / name, content)])
        except InputError:
            assert not others
            return
        read = list(file.rows())
    kept = [row.value for row in read if isinstance(row, SourceRow)]
    assert [row.place.number for row in read] == list(range(1, len(read) + 1))
    missing = [row for row in others if row not in kept]
    assert not missing, [row.detail for row in read if isinstance(row, Rejection)]
