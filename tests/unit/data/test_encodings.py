from __future__ import annotations

from pathlib import Path

import pytest

from palmswift.data.encodings import read_text
from palmswift.errors import InputError

CHINESE = '{"query": "几点开门？", "response": "早上八点，周一休诊。"}\n'


@pytest.mark.parametrize(
    ("codec", "named"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("gb18030", "gb18030"),
    ],
)
def test_the_encoding_is_found_and_the_text_is_whole(
    tmp_path: Path, codec: str, named: str
) -> None:
    path = tmp_path / "f"
    # ASCII keys, as data files have them, are what tells UTF-16 without a mark from other bytes.
    path.write_bytes((CHINESE * 3).encode(codec))
    assert read_text(path) == (CHINESE * 3, named)


def test_one_broken_line_does_not_change_the_encoding_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(CHINESE.encode() * 3 + b"\xff\xfe broken\n" + CHINESE.encode())
    text, encoding = read_text(path)
    assert encoding == "utf-8"
    assert text.count("几点开门？") == 4
    assert "\udcff\udcfe broken" in text


def test_a_broken_line_of_gb18030_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(CHINESE.encode("gb18030") * 3 + b"\xff\xff\n" + CHINESE.encode("gb18030"))
    text, encoding = read_text(path)
    assert encoding == "gb18030"
    assert text.count("几点开门？") == 4


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n\t\r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xfe\xff", "empty"),
        (b"PK\x03\x04whatever", "Excel"),
        (b"\x1f\x8b\x08whatever", "gzip"),
        (bytes(range(256)) * 8, "binary"),
        (b"\x00\x01\x02\x03" * 64, "binary"),
    ],
)
def test_what_is_not_text_is_refused_with_what_it_is(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=said) as caught:
        read_text(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="folder"):
        read_text(tmp_path)
