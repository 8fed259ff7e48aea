from __future__ import annotations

import datetime
import decimal
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard

from palmswift.data.read import DataFile, open_files
from palmswift.data.row import Rejection, SourceRow
from palmswift.errors import InputError

ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": "几点？"},
            {"role": "assistant", "content": "007"},
        ],
        "label": True,
        "score": 0.5,
        "n": 3,
    },
    {"messages": [], "label": None, "score": None, "n": 2**40},
]


def one(path: Path) -> DataFile:
    (file,) = open_files([path])
    return file


def values(file: DataFile) -> list[Any]:
    return [row.value for row in file.rows() if isinstance(row, SourceRow)]


def write_stream(path: Path, table: Any, rows_a_batch: int = 1000) -> None:
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", ["f.parquet", "f.arrow", "f.feather"])
def test_a_table_is_read_with_its_nested_columns(tmp_path: Path, name: str, packed: str) -> None:
    path = tmp_path / name
    table = pyarrow.Table.from_pylist(ROWS * 700)
    if name == "f.parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=600)
    elif name == "f.arrow":
        write_stream(path, table)
    else:
        pyarrow.feather.write_feather(table, str(path))
    if packed:
        pack = gzip.compress if packed == ".gz" else zstandard.compress
        path.with_name(name + packed).write_bytes(pack(path.read_bytes()))
        path = path.with_name(name + packed)
    file = one(path)
    assert file.format == ("parquet" if name == "f.parquet" else "arrow")
    assert values(file) == ROWS * 700
    assert file.position == file.size
    assert [row.place[1:] for row in file.rows()] == [(n, n) for n in range(1, 1401)]


def test_what_json_does_not_know_becomes_text(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    row = {
        "day": datetime.date(2024, 1, 2),
        "time": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "midnight": datetime.datetime(2024, 1, 2),
        "price": decimal.Decimal("1.50"),
        "bytes": "好".encode(),
        "map": {"a": 1, "b": None},
    }
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    assert values(one(path)) == [
        {
            "day": "2024-01-02",
            "time": "2024-01-02 03:04:05",
            "midnight": "2024-01-02",
            "price": "1.50",
            "bytes": "好",
            "map": {"a": 1},
        }
    ]


def test_a_row_that_is_too_large_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    rows = [{"text": "a"}, {"text": "x" * (17 << 20)}, {"text": "b"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    read = list(one(path).rows())
    assert [getattr(row, "code", "ok") for row in read] == ["ok", "row_too_large", "ok"]
    assert isinstance(read[1], Rejection)
    assert len(read[1].row) <= 1000


@pytest.mark.parametrize("name", ["f.parquet", "f.arrow"])
def test_a_table_that_is_cut_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    table = pyarrow.Table.from_pylist(ROWS * 5000)
    if name == "f.parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        write_stream(path, table)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read"):
        for _ in one(path).rows():
            pass


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS).slice(0, 0), path)
    with pytest.raises(InputError, match="no rows"):
        one(path)


def save_to_disk(folder: Path, rows: list[Any], shards: int = 1) -> None:
    """As `datasets.Dataset.save_to_disk` lays a folder out."""
    folder.mkdir(parents=True)
    names = [f"data-{index:05}-of-{shards:05}.arrow" for index in range(shards)]
    for index, name in enumerate(names):
        write_stream(folder / name, pyarrow.Table.from_pylist(rows[index::shards]))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": names[0]}]}))
    (folder / "dataset_info.json").write_text("{}")
    (folder / "cache-0123.arrow").write_bytes(b"left by map")


def test_a_saved_dataset_is_read_shard_by_shard(tmp_path: Path) -> None:
    rows = [{"query": str(number), "response": "a"} for number in range(10)]
    save_to_disk(tmp_path / "set", rows, shards=3)
    files = open_files([tmp_path / "set"])
    assert [Path(file.source).name for file in files] == [
        f"data-{index:05}-of-00003.arrow" for index in range(3)
    ]
    assert [row for file in files for row in values(file)] == rows[0::3] + rows[1::3] + rows[2::3]


def test_of_a_saved_dict_of_datasets_the_train_split_is_read_and_the_others_told(
    tmp_path: Path,
) -> None:
    rows = [{"query": "q", "response": "a"}]
    save_to_disk(tmp_path / "set" / "train", rows)
    save_to_disk(tmp_path / "set" / "test", rows * 2)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (file,) = open_files([tmp_path / "set"])
    assert values(file) == rows
    assert "test/data-00000-of-00001.arrow" in file.notes[0]
